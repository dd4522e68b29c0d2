"""Staging: half-made things under the data root's ``tmp``, each locked by its maker.

The lock is on the directory (or file) itself. What a killed maker leaves behind can be locked by anyone, and that is
how ``sweep`` knows it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from minidock.model.digest import is_digest, parse_digest
from minidock.store import files, locks

if TYPE_CHECKING:
    from types import TracebackType

    from minidock.store.layout import DataRoot

_LEANS = ".leans"
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Staging:
    """A private directory ``path`` under ``tmp/``, locked as long as the context lasts and removed at its end.

    Moving ``path`` away by rename is how something that is finished leaves it. ``prefix`` is for people who look.
    """

    __slots__ = ("_fd", "path", "prefix", "root")

    def __init__(self, root: DataRoot, prefix: str = "stage") -> None:
        self.root = root
        self.prefix = prefix
        self.path = ""
        self._fd = -1

    def __enter__(self) -> Staging:
        while True:
            path = f"{self.root.tmp}/{self.prefix}-{os.urandom(8).hex()}"
            os.mkdir(path, 0o700)
            fd = _lock_directory(path)
            if fd is not None:
                self.path, self._fd = path, fd
                return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            files.remove_tree(self.path)
        finally:
            os.close(self._fd)
            self._fd = -1

    def lean_on(self, digests: Iterable[str]) -> None:
        """From now on removal keeps these blobs and layers, until the context ends.

        Waits for a removal that is under way, so that what is there after this call stays there; name a digest before
        adopting its blob. Raises InvalidReferenceError for anything that is not a digest, OSError.
        """
        text = "".join(f"{parse_digest(digest)}\n" for digest in digests)
        if not text:
            return
        with locks.shared(self.root.collection_lock):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(f"{self.path}/{_LEANS}", flags, 0o600)
            try:
                files.write_all(fd, text.encode())
            finally:
                os.close(fd)


def sweep(root: DataRoot) -> int:
    """Remove the entries of ``tmp/`` whose maker is dead; returns how many. What cannot be removed stays.

    Raises OSError only when ``tmp/`` itself cannot be read.
    """
    swept = 0
    for name in os.listdir(root.tmp):
        path = f"{root.tmp}/{name}"
        try:
            swept += _sweep_entry(path)
        except OSError:
            continue
    return swept


def abandoned(root: DataRoot) -> set[str]:
    """The names of the entries of ``tmp/`` that ``sweep`` would remove: nobody holds them. An entry that was made an
    instant ago may not be held yet. Raises OSError only when ``tmp/`` itself cannot be read.
    """
    found = set()
    for name in os.listdir(root.tmp):
        try:
            if _is_abandoned(f"{root.tmp}/{name}"):
                found.add(name)
        except OSError:
            continue
    return found


def staged_digests(root: DataRoot) -> set[str]:
    """The digests that live stagings lean on. Exact only while the collection lock is held alone. Raises OSError."""
    digests: set[str] = set()
    for name in os.listdir(root.tmp):
        path = f"{root.tmp}/{name}"
        digests.update(_leans(path))
    return digests


def _lock_directory(path: str) -> int | None:
    """Open and lock a directory that was just made; None when a sweep was quicker and it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if locks.is_at(path, fd):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _is_abandoned(path: str) -> bool:
    if not _can_be_locked(path):
        return True
    fd = os.open(path, _OPEN)
    try:
        return locks.try_lock(fd) and locks.is_at(path, fd)
    finally:
        os.close(fd)


def _can_be_locked(path: str) -> bool:
    mode = os.lstat(path).st_mode
    return stat.S_ISDIR(mode) or stat.S_ISREG(mode)


def _sweep_entry(path: str) -> int:
    if not _can_be_locked(path):
        os.unlink(path)
        return 1
    fd = os.open(path, _OPEN)
    try:
        if not locks.try_lock(fd) or not locks.is_at(path, fd):
            return 0
        files.remove_tree(path)
        return 1
    finally:
        os.close(fd)


def _leans(path: str) -> Iterator[str]:
    try:
        data = files.read_file(f"{path}/{_LEANS}", limit=files.MAX_JSON)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not locks.is_held(path):
        return
    for line in data.decode("ascii", "replace").splitlines():
        if is_digest(line):
            yield line
