"""Blobs on their way here: read while they come, checked, and gone on with where an earlier try ended.

What has come of a blob lies in ``cache/downloads/<64 digits>`` until all of it is there; of several who want the same
blob one downloads, and the others wait for that.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import urllib3

from minidock.errors import RegistryError, StoreError
from minidock.model.digest import hex_of
from minidock.registry.session import CONNECT, READ
from minidock.store import locks
from minidock.store.files import hint_for, unlink_if_there, write_all
from minidock.transport.reasons import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minidock.model.oci import Descriptor
    from minidock.registry.repository import Repository
    from minidock.registry.retry import Patience
    from minidock.store.layout import DataRoot

_BLOCK = 1 << 18
# Fewer bytes in a minute than this are as good as none.
_WINDOW = 60.0
_SLOWEST = 16 << 10
# What nobody has gone on with for so many seconds is given up.
_ABANDONED = 7 * 86400
# How often somebody who waits for another's download looks whether it is there.
_LOOK = 0.05


class DamagedError(RegistryError):
    """What has come is not what the digest says; it is thrown away."""


class Download:
    """A blob as a stream: ``read`` gives what has come before, then what comes. Raises DamagedError there for what is
    not what the digest says, RegistryError for what does not come, StoreError where it cannot be kept.

    ``fetched`` counts the bytes that came now; ``patched`` says whether the blob is put together from several answers,
    so that one that is damaged may come whole when it is asked for anew. ``tell`` is called with the bytes so far, and
    also before anything is tried again: what it raises ends the download.
    """

    __slots__ = (
        "_answer",
        "_failures",
        "_fd",
        "_hash",
        "_mark",
        "_open",
        "_patience",
        "_repository",
        "_window",
        "descriptor",
        "fetched",
        "patched",
        "path",
        "size",
        "tell",
    )

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        path: str,
        *,
        patience: Patience,
        tell: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.descriptor = descriptor
        self.path = path
        self.fetched = 0
        self.size = 0
        self.patched = False
        self.tell = tell
        self._repository = repository
        self._patience = patience
        self._hash = hashlib.sha256()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._open = ExitStack()
        self._answer: urllib3.BaseHTTPResponse | None = None
        self._failures = 0
        # How much had come at the last failure that counts, and since when the speed is looked at.
        self._mark = 0
        self._window = (0.0, 0)
        try:
            self._begin_file()
        except BaseException:
            os.close(self._fd)
            raise

    def _begin_file(self) -> None:
        there = os.fstat(self._fd).st_size
        if there > self.descriptor.size:
            os.ftruncate(self._fd, 0)
            there = 0
        self.patched = there > 0
        free = os.fstatvfs(self._fd)
        if self.descriptor.size - there > free.f_bavail * free.f_frsize:
            raise StoreError(
                f"cannot pull {self._repository.name}: a layer has {self.descriptor.size} bytes, and the disk has "
                f"{free.f_bavail * free.f_frsize} free",
                hint="free some space: remove containers, images or volumes that are not needed",
            )

    def close(self) -> None:
        self._open.close()
        if not os.fstat(self._fd).st_size:
            self.discard()
        os.close(self._fd)

    def abort(self) -> None:
        """From another thread: let whoever waits for bytes wait no more."""
        answer = self._answer
        if answer is not None:
            with suppress(ValueError, RuntimeError, OSError):
                answer.shutdown()

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, b"" at the end of the whole blob."""
        if size == 0:
            return b""
        data = os.read(self._fd, _BLOCK if size < 0 else size)
        if not data and self.size < self.descriptor.size:
            data = self._next(_BLOCK if size < 0 else size)
        if data:
            self._hash.update(data)
            self.size += len(data)
            self.tell(self.size)
            return data
        if f"sha256:{self._hash.hexdigest()}" != self.descriptor.digest:
            # What has come is of no use to anybody.
            self.discard()
            raise DamagedError(
                f"cannot pull {self._repository.name}: the layer {self.descriptor.digest} is not what its digest says",
                hint="pull again; if it stays so, the image in the registry is damaged",
            )
        return b""

    def discard(self) -> None:
        """Remove what has come, for good."""
        unlink_if_there(self.path)

    def drain(self) -> None:
        """Read what is left, to the checked end."""
        while self.read():
            continue

    def _next(self, size: int) -> bytes:
        """The next bytes from the server, kept; anew from there when the connection is lost."""
        while True:
            try:
                data = self._receive(min(size, self.descriptor.size - self.size + 1))
                if not data:
                    raise urllib3.exceptions.ProtocolError("the body ended too early")
                break
            except urllib3.exceptions.HTTPError as error:
                self._drop()
                # A server that gives a few bytes each time is none that goes on.
                self._failures = self._failures + 1 if self.size - self._mark < _SLOWEST else 1
                self._mark = self.size
                if self._failures >= self._patience.tries:
                    reason = reason_of(error, connect=CONNECT, read=READ)
                    raise RegistryError(
                        f"cannot pull {self._repository.name}: {reason}, after {self.size} of {self.descriptor.size} "
                        f"bytes of the layer {self.descriptor.digest}",
                        hint="pull again: it goes on from there",
                    ) from error
                self.tell(self.size)
                self._patience.wait(self._failures)
                self.tell(self.size)
        if self.size + len(data) > self.descriptor.size:
            self.discard()
            raise RegistryError(
                f"cannot pull {self._repository.name}: the layer {self.descriptor.digest} has more than the "
                f"{self.descriptor.size} bytes that its manifest says"
            )
        try:
            write_all(self._fd, data)
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}", hint=hint_for(error)) from error
        return data

    def _receive(self, size: int) -> bytes:
        if self._answer is None:
            self._answer = self._begin()
        return self._came(self._answer, size)

    def _came(self, answer: urllib3.BaseHTTPResponse, size: int) -> bytes:
        """The next bytes of an answer, which are counted. Raises urllib3's errors, also for what comes too slowly."""
        data = answer.read1(size)
        self.fetched += len(data)
        begun, had = self._window
        if time.monotonic() - begun > _WINDOW:
            if self.fetched - had < _SLOWEST:
                raise urllib3.exceptions.HTTPError(
                    f"it comes too slowly: {self.fetched - had} bytes in {_WINDOW:.0f} seconds"
                )
            self._window = (time.monotonic(), self.fetched)
        return data

    def _begin(self) -> urllib3.BaseHTTPResponse:
        """Ask for what is missing; a server that can only begin at the beginning is read up to there."""
        self.patched = self.patched or self.size > 0
        response, _ = self._open.enter_context(self._repository.blob(self.descriptor, start=self.size))
        said = response.headers.get("Content-Range", "")
        goes_on = response.status == 206 and said.startswith(f"bytes {self.size}-")
        if self.size and response.status != 200 and not goes_on:
            # It cannot begin there, or begins elsewhere: what it has as a whole is asked for.
            self._open.close()
            response, _ = self._open.enter_context(self._repository.blob(self.descriptor))
        # Also what comes in vain is looked at, and may be ended from outside.
        self._answer = response
        self._window = (time.monotonic(), self.fetched)
        left = 0 if goes_on else self.size
        while left:
            data = self._came(response, min(left, _BLOCK))
            if not data:
                raise urllib3.exceptions.ProtocolError("the body ended too early")
            left -= len(data)
            self.tell(self.size)
        return response

    def _drop(self) -> None:
        self._answer = None
        self._open.close()


class Downloads:
    """The downloads of a data root."""

    __slots__ = ("_directory", "_locks", "_patience")

    def __init__(self, root: DataRoot, patience: Patience) -> None:
        self._directory = f"{root.cache}/downloads"
        self._locks = f"{root.run}/downloads"
        self._patience = patience
        os.makedirs(self._directory, 0o700, exist_ok=True)
        os.makedirs(self._locks, 0o700, exist_ok=True)

    def sweep(self) -> None:
        """Remove what of blobs has come a week ago and more, and nobody is at. Raises OSError."""
        for name in os.listdir(self._directory):
            path = f"{self._directory}/{name}"
            with suppress(FileNotFoundError):
                if time.time() - os.stat(path).st_mtime < _ABANDONED:
                    continue
                fd = locks.try_passing(f"{self._locks}/{name}")
                if fd is not None:
                    unlink_if_there(path)
                    locks.end_passing(f"{self._locks}/{name}", fd)

    @contextmanager
    def claim(self, descriptor: Descriptor, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Be the only one who downloads a blob; ``waiting`` is called again and again while somebody else is at it, and
        what it raises ends the wait. The blob may be there afterwards."""
        path = f"{self._locks}/{hex_of(descriptor.digest)}"
        while (fd := locks.try_passing(path)) is None:
            # A thread that waits in the kernel could not be called off.
            waiting()
            time.sleep(_LOOK)
        try:
            yield
        finally:
            locks.end_passing(path, fd)

    @contextmanager
    def open(
        self, repository: Repository, descriptor: Descriptor, tell: Callable[[int], None] = lambda _: None
    ) -> Iterator[Download]:
        """A claimed blob as a stream; what has come of it stays when the context ends."""
        path = f"{self._directory}/{hex_of(descriptor.digest)}"
        try:
            download = Download(repository, descriptor, path, patience=self._patience, tell=tell)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}", hint=hint_for(error)) from error
        try:
            yield download
        finally:
            download.close()
