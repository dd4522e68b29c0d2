"""A layer's tarball written straight from what is to be in it, and its index with it: no writable layer, no walk."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers.packed import Packed
from minidock.drivers.tar_format import (
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    FIFO,
    LINK,
    MAX_NAME,
    REGULAR,
    SYMLINK,
    Entry,
    shorten,
)
from minidock.drivers.tar_writer import TarWriter
from minidock.drivers.whiteouts import PREFIX
from minidock.drivers.xattrs import NO_XATTRS, belongs
from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from minidock.drivers.indexer import Indexer

_TYPES = {
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR_DEVICE,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}


class Composer:
    """Writes the tar of a layer to ``out``, an empty file.

    Entries are given in the packer's order: depth first, the names of a directory sorted bytewise, a directory (the
    root, with an empty path, too) before its content; every directory on the way to an entry is given itself.
    Paths are relative, without links; ``mode`` is st_mode with its type, ``mtime`` whole seconds. Of ``xattrs`` the tar
    holds what belongs to a layer. ``view`` is the merged tree of the layers beneath, for whoever has to look at it.
    Methods raise ArchiveError for what a layer cannot hold, and OSError from ``out``.
    """

    __slots__ = ("_indexer", "_writer", "view")

    def __init__(self, out: BinaryIO, view: int, indexer: Indexer) -> None:
        self._writer = TarWriter(out, fd=out.fileno())
        self._indexer = indexer
        self.view = view

    def watch(self, on_written: Callable[[int], None]) -> None:
        """Tell ``on_written`` now and then, and in the end, how many bytes of the tar are written."""
        self._writer.on_written = on_written

    def add(
        self,
        path: str,
        *,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        target: str = "",
        rdev: int = 0,
        xattrs: Mapping[str, bytes] = NO_XATTRS,
        link_to: str = "",
    ) -> None:
        """Write a directory, a symbolic link to ``target``, a device ``rdev`` or a FIFO; or, with ``link_to``, another
        name of the file that was written under that path before."""
        _check_path(path)
        kind = stat.S_IFMT(mode)
        if kind == stat.S_IFCHR and rdev == 0:
            raise ArchiveError(f"a layer cannot hold the character device 0:0 {shorten(path)}: it marks a deletion")
        entry = Entry(
            path,
            LINK if link_to else _TYPES[kind],
            stat.S_IMODE(mode),
            uid,
            gid,
            mtime=mtime,
            linkname=link_to or target,
            major=os.major(rdev),
            minor=os.minor(rdev),
            xattrs=_kept(xattrs) if xattrs else NO_XATTRS,
        )
        self._writer.add(entry)
        self._indexer.add(entry, 0)

    def add_file(
        self,
        path: str,
        *,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        size: int,
        xattrs: Mapping[str, bytes] = NO_XATTRS,
        source: int | bytes | memoryview,
    ) -> None:
        """Write a regular file of ``size`` bytes from ``source``: a descriptor that is read, or all of its bytes.

        Raises ArchiveError also when the descriptor gives more or less.
        """
        _check_path(path)
        kept = _kept(xattrs) if xattrs else xattrs
        entry = Entry(path, REGULAR, mode & 0o7777, uid, gid, size, mtime, "", 0, 0, kept)
        if isinstance(source, int):
            offset = self._writer.add_file(entry, source)
        else:
            offset = self._writer.add_bytes(entry, source)
        self._indexer.add(entry, offset)

    def finish(self) -> Packed:
        """End the tar; nothing is written after this. Without entries the layer is empty."""
        entries = self._writer.entries
        diff_id = self._writer.finish()
        size = self._writer.size
        if entries == 0:
            return Packed(diff_id, size, 0, True, 0)
        index = self._indexer.finish(diff_id=diff_id, tar_size=size)
        return Packed(diff_id, size, entries, False, 0, index, self._indexer.problem)


def _check_path(path: str) -> None:
    """Raises ArchiveError for a path that no layer can hold: its last name would mark a deletion, or it is too long."""
    if PREFIX in path and path.startswith(PREFIX, path.rfind("/") + 1):
        raise ArchiveError(
            f"a layer cannot hold the file {shorten(path)}: names that begin with {PREFIX} mark deletions",
            hint="remove or rename the file",
        )
    if len(path) > MAX_NAME // 4 and len(os.fsencode(path)) > MAX_NAME - len(PREFIX):
        raise ArchiveError(f"a layer cannot hold the file {shorten(path)}: its path is too long")


def _kept(xattrs: Mapping[str, bytes]) -> Mapping[str, bytes]:
    return {name: value for name, value in xattrs.items() if belongs(name)}
