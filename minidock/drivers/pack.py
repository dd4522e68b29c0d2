"""From a writable layer to a layer tarball: one pass that reads, hashes and writes."""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers import xattrs
from minidock.drivers.interface import Change
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
from minidock.drivers.walk import Found, Walk
from minidock.drivers.whiteouts import OPAQUE, OPAQUE_XATTR, PREFIX
from minidock.drivers.xattrs import NO_XATTRS
from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from minidock.drivers.indexer import Indexer
    from minidock.model.dating import Dating

# Reading must not change the access times of what becomes a layer, nor cost an inode write for each file.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOATIME
_MARKER_MODE = 0o600
_SPECIAL = {stat.S_IFCHR: CHAR_DEVICE, stat.S_IFBLK: BLOCK_DEVICE, stat.S_IFIFO: FIFO, stat.S_IFLNK: SYMLINK}


def pack(
    upper_fd: int,
    below_fd: int,
    out: BinaryIO,
    *,
    copied: bool,
    normalise: bool = True,
    indexer: Indexer | None = None,
    dating: Dating | None = None,
) -> Packed:
    """Write the layer that the writable layer ``upper_fd`` makes above ``below_fd`` to ``out``, and leave the writable
    layer as unpacking that tar would make it. ``below_fd`` -1, ``copied``, ``normalise`` and ``dating`` are as in
    ``Walk``; ``indexer`` is given every entry.

    A layer that would hold the root directory alone, with another time and nothing else, is empty: whatever was made
    there and taken away again touches that time. Raises ArchiveError for what a layer cannot hold, OSError.
    """
    writer = TarWriter(out, fd=_file_of(out))
    packer = _Packer(writer, indexer, normalise=normalise)
    for found in Walk(upper_fd, below_fd, copied=copied, normalise=normalise, dating=dating):
        packer.add(found)
    entries = writer.entries
    digest = writer.finish()
    if entries == 1 and packer.has_root and below_fd >= 0 and _same_but_time(upper_fd, below_fd):
        below = os.fstat(below_fd)
        os.utime(f"/proc/self/fd/{upper_fd}/.", ns=(below.st_atime_ns, below.st_mtime_ns))
        return Packed(digest, writer.size, 0, True, packer.deletions)
    return Packed(digest, writer.size, entries, entries == 0, packer.deletions)


def _file_of(out: BinaryIO) -> int:
    """The descriptor of the file that the tar goes to, -1 where it is none."""
    fd = out.fileno() if isinstance(out, io.FileIO) else -1
    return fd if fd >= 0 and stat.S_ISREG(os.fstat(fd).st_mode) else -1


def _same_but_time(upper_fd: int, below_fd: int) -> bool:
    upper, below = os.fstat(upper_fd), os.fstat(below_fd)
    same = (upper.st_mode, upper.st_uid, upper.st_gid) == (below.st_mode, below.st_uid, below.st_gid)
    return same and _kept_xattrs(upper_fd) == _kept_xattrs(below_fd)


def _kept_xattrs(fd: int) -> Mapping[str, bytes]:
    # Through a path: a mount's descriptor is O_PATH, which the calls on descriptors refuse.
    path = f"/proc/self/fd/{fd}/."
    return xattrs.values_of(path, xattrs.names_of(path))


def changes(upper_fd: int, below_fd: int, *, copied: bool) -> Iterator[Change]:
    """What ``docker diff`` tells: A added, C changed (parents of changes, too), D deleted; absolute paths in the order
    of the walk. The writable layer may be in use. Raises OSError."""
    for found in Walk(upper_fd, below_fd, copied=copied, normalise=False):
        if not found.path:
            continue
        kind = "D" if found.status is None else "C" if found.beneath else "A"
        yield Change(kind, f"/{found.path}")


class _Packer:
    __slots__ = ("_indexer", "_links", "_normalise", "_writer", "deletions", "has_root")

    def __init__(self, writer: TarWriter, indexer: Indexer | None, *, normalise: bool) -> None:
        self._writer = writer
        self._indexer = indexer
        self._normalise = normalise
        self._links: dict[tuple[int, int], str] = {}
        self.deletions = 0
        self.has_root = False

    def add(self, found: Found) -> None:
        level, name, path, status, _, _ = found
        if name.startswith(PREFIX):
            raise ArchiveError(
                f"a layer cannot hold the file {shorten(path)}: names that begin with {PREFIX} mark deletions",
                hint="remove or rename the file",
            )
        if len(path) > MAX_NAME // 4 and len(os.fsencode(path)) > MAX_NAME - len(PREFIX):
            raise ArchiveError(f"a layer cannot hold the file {shorten(path)}: its path is too long")
        if status is None:
            self.deletions += 1
            directory = f"{level.path}/" if level.path else ""
            self._put(Entry(f"{directory}{PREFIX}{name}", mode=_MARKER_MODE))
        elif stat.S_ISDIR(status.st_mode):
            self._add_directory(found, status)
        else:
            self._add_other(found, status)

    def _put(self, entry: Entry) -> None:
        self._writer.add(entry)
        if self._indexer is not None:
            self._indexer.add(entry, 0)

    def _strip(self, file: str | int, names: list[str], *, keep: str = "") -> None:
        if self._normalise:
            xattrs.strip(file, names, keep=keep)

    def _add_directory(self, found: Found, status: os.stat_result) -> None:
        level = found.level
        self.has_root |= not found.path
        names = xattrs.names_of(level.fd)
        values = xattrs.values_of(level.fd, names)
        self._strip(level.fd, names, keep=OPAQUE_XATTR if level.opaque else "")
        self._put(_entry(found.path, DIRECTORY, status, found.mtime, xattrs=values))
        if level.opaque:
            self._put(Entry(f"{found.path}/{OPAQUE}", mode=_MARKER_MODE))

    def _add_other(self, found: Found, status: os.stat_result) -> None:
        level, name, path, _, _, mtime = found
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first is not path:
                self._put(_entry(path, LINK, status, mtime, linkname=first))
                return
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            self._add_file(level.fd, name, path, status, mtime)
            return
        if kind == stat.S_IFCHR and status.st_rdev == 0:
            raise ArchiveError(f"a layer cannot hold the character device 0:0 {shorten(path)}: it marks a deletion")
        file = f"/proc/self/fd/{level.fd}/{name}"
        names = xattrs.names_of(file)
        values = xattrs.values_of(file, names)
        self._strip(file, names)
        target = os.readlink(name, dir_fd=level.fd) if kind == stat.S_IFLNK else ""
        self._put(_entry(path, _SPECIAL[kind], status, mtime, linkname=target, xattrs=values))

    def _add_file(self, dir_fd: int, name: str, path: str, status: os.stat_result, mtime: int) -> None:
        fd = _open(name, dir_fd)
        try:
            names = xattrs.names_of(fd)
            values = None
            if names:
                values = xattrs.values_of(fd, names)
                self._strip(fd, names)
            entry = _entry(path, REGULAR, status, mtime, size=status.st_size, xattrs=values)
            offset = self._writer.add_file(entry, fd)
            if self._indexer is not None:
                self._indexer.add(entry, offset)
        finally:
            os.close(fd)


def _entry(
    path: str,
    kind: bytes,
    status: os.stat_result,
    mtime: int,
    *,
    size: int = 0,
    linkname: str = "",
    xattrs: Mapping[str, bytes] | None = None,
) -> Entry:
    device = status.st_rdev if kind in {CHAR_DEVICE, BLOCK_DEVICE} else 0
    return Entry(
        path,
        kind,
        status.st_mode & 0o7777,
        status.st_uid,
        status.st_gid,
        size,
        mtime,
        linkname,
        os.major(device),
        os.minor(device),
        xattrs or NO_XATTRS,
    )


def _open(name: str, dir_fd: int) -> int:
    try:
        return os.open(name, _READ, dir_fd=dir_fd)
    except PermissionError:
        # O_NOATIME is the owner's and root's alone.
        return os.open(name, _READ & ~os.O_NOATIME, dir_fd=dir_fd)
