"""Blobs: immutable files named by their sha256 (OCI image-spec, image-layout.md, "Blobs")."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from minidock.errors import CorruptObjectError, StoreError
from minidock.model.digest import digest_of, hex_of, is_id
from minidock.store import files

if TYPE_CHECKING:
    from minidock.store.layout import DataRoot

MAX_METADATA = 4 * 1024 * 1024


class Blobs:
    """The blobs of a data root. A blob has its name only when its content is whole and on disk."""

    __slots__ = ("root",)

    def __init__(self, root: DataRoot) -> None:
        self.root = root

    def path(self, digest: str) -> str:
        """Where the blob lies, or would. Raises InvalidReferenceError for anything that is not a digest."""
        return f"{self.root.blobs}/{hex_of(digest)}"

    def has(self, digest: str) -> bool:
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """Bytes. Raises CorruptObjectError when the blob is missing."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: str, *, limit: int = MAX_METADATA) -> bytes:
        """The blob's bytes, checked against its digest.

        Raises CorruptObjectError when it is missing, larger than ``limit`` bytes or not what its digest says.
        """
        try:
            data = files.read_file(self.path(digest), limit=limit)
        except FileNotFoundError:
            raise _missing(digest) from None
        except OSError as error:
            raise StoreError(f"cannot read the blob {digest}: {error.strerror}") from error
        if digest_of(data) != digest:
            raise CorruptObjectError(f"the blob {digest} is damaged: its content has another digest")
        return data

    def open(self, digest: str) -> BinaryIO:
        """The blob as a file open for reading, not checked. Raises CorruptObjectError when it is missing."""
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError:
            raise _missing(digest) from None

    def put(self, data: bytes) -> str:
        """Store ``data`` durably and return its digest. Raises StoreError."""
        return self.put_all([data])[0]

    def put_all(self, contents: Sequence[bytes]) -> tuple[str, ...]:
        """Store several, with one sync of their directory; returns their digests. Raises StoreError."""
        digests = tuple(digest_of(data) for data in contents)
        for digest, data in zip(digests, contents, strict=True):
            if not self.is_there(digest, len(data)):
                files.write_atomic(
                    self.path(digest), data, sync=True, mode=0o400, scratch=self.root.tmp, name_later=True
                )
        self.settle()
        return digests

    def settle(self) -> None:
        """Put the names of all blobs on disk, also those that another process has just made. Raises StoreError."""
        try:
            files.fsync_dir(self.root.blobs)
        except OSError as error:
            raise StoreError(f"cannot sync {self.root.blobs}: {error.strerror}") from error

    def adopt(self, path: str, digest: str) -> None:
        """Move the file ``path``, whose digest the caller has computed, among the blobs, durably.

        ``path`` is gone then. Raises StoreError.
        """
        self.adopt_all([(path, digest)])

    def adopt_all(self, staged: Sequence[tuple[str, str]]) -> None:
        """Move several (path, digest) files: each is put on disk, then all are renamed, then their directory is synced.

        A blob that is there already stays; its new copy is removed. Raises StoreError.
        """
        try:
            new = []
            for path, digest in staged:
                if self.is_there(digest, os.stat(path).st_size):
                    os.unlink(path)
                else:
                    _make_durable(path)
                    new.append((path, digest))
            for path, digest in new:
                os.rename(path, self.path(digest))
            if new:
                files.fsync_dir(self.root.blobs)
        except OSError as error:
            raise StoreError(f"cannot store a blob: {error.strerror}", hint=files.hint_for(error)) from error

    def remove(self, digest: str) -> int:
        """Remove a blob and return its bytes; one that is gone already counts 0. Raises OSError."""
        path = self.path(digest)
        try:
            size = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    def all(self) -> Iterator[str]:
        """The digest of every blob, in no order. Raises OSError."""
        for name in os.listdir(self.root.blobs):
            if is_id(name):
                yield f"sha256:{name}"

    def is_there(self, digest: str, size: int) -> bool:
        """Whether the blob is there with all of its bytes: another of the same digest is not stored beside it."""
        try:
            return os.stat(self.path(digest)).st_size == size
        except FileNotFoundError:
            return False


def _make_durable(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o400)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _missing(digest: str) -> CorruptObjectError:
    return CorruptObjectError(f"the blob {digest} is missing")
