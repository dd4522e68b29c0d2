"""The tarball of a base image, entry by entry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers.tar_format import DIRECTORY, LINK, REGULAR, SYMLINK, Entry
from minidock.drivers.tar_writer import TarWriter

if TYPE_CHECKING:
    from minidock.drivers.tar_reader import TarReader


class BaseTar:
    """A tar writer for root's files, all of one time. A context; ``finish`` ends the tarball."""

    __slots__ = ("_buffer", "_mtime", "_writer")

    def __init__(self, out: BinaryIO, *, mtime: int) -> None:
        self._writer = TarWriter(out)
        self._mtime = mtime
        self._buffer = os.memfd_create("minidock-base", os.MFD_CLOEXEC)

    def __enter__(self) -> BaseTar:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._buffer)

    def directory(self, name: str, mode: int = 0o755) -> None:
        self._writer.add(Entry(name, DIRECTORY, mode, mtime=self._mtime))

    def text(self, name: str, text: str, mode: int = 0o644) -> None:
        """A file of this content."""
        self._rewind()
        os.write(self._buffer, text.encode())
        self._add_buffer(Entry(name, REGULAR, mode, size=len(text.encode()), mtime=self._mtime))

    def host_file(self, name: str, path: str, mode: int) -> None:
        """A file of the host. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._writer.add_file(Entry(name, REGULAR, mode, size=os.fstat(fd).st_size, mtime=self._mtime), fd)
        finally:
            os.close(fd)

    def hard_link(self, name: str, target: str, mode: int) -> None:
        """Another name of the entry ``target``, which came before."""
        self._writer.add(Entry(name, LINK, mode, mtime=self._mtime, linkname=target))

    def symlink(self, name: str, target: str) -> None:
        self._writer.add(Entry(name, SYMLINK, 0o777, mtime=self._mtime, linkname=target))

    def copy(self, entry: Entry, reader: TarReader) -> None:
        """The current entry of another tarball, as it is but for holes. Raises ArchiveError, OSError."""
        if entry.type != REGULAR:
            self._writer.add(entry)
            return
        self._rewind()
        reader.copy_to(self._buffer, entry)
        self._add_buffer(entry._replace(segments=None))

    def finish(self) -> None:
        """End the tarball. Raises OSError."""
        self._writer.finish()

    def _rewind(self) -> None:
        os.ftruncate(self._buffer, 0)
        os.lseek(self._buffer, 0, os.SEEK_SET)

    def _add_buffer(self, entry: Entry) -> None:
        os.lseek(self._buffer, 0, os.SEEK_SET)
        self._writer.add_file(entry, self._buffer)
