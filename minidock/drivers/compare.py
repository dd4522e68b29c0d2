"""Is an entry the same as the one beneath it?"""

from __future__ import annotations

import os
import stat

from minidock.drivers import xattrs

_SECOND = 1_000_000_000
_CHUNK = 1 << 17
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def same_directory(fd: int, status: os.stat_result, below_fd: int, below: os.stat_result, mtime: int) -> bool:
    """Whether two open directories have the same mode, owner, whole-second mtime and attributes; ``mtime`` is the one
    that the first is to have, in seconds."""
    return _same_status(status, below, mtime) and xattrs.read(fd) == xattrs.read(below_fd)


def same_entry(
    dir_fd: int, below_fd: int, name: str, status: os.stat_result, below: os.stat_result, *, mtime: int | None = None
) -> bool:
    """Whether ``name``, no directory, is in ``dir_fd`` what it is in ``below_fd``.

    Type, mode, owner, size, whole-second mtime (``mtime``, where it is to have another), device, attributes, and then
    the target or the content.
    """
    if not _same_status(status, below, status.st_mtime_ns // _SECOND if mtime is None else mtime):
        return False
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        return status.st_size == below.st_size and _same_file(dir_fd, below_fd, name)
    if kind == stat.S_IFLNK:
        if os.readlink(name, dir_fd=dir_fd) != os.readlink(name, dir_fd=below_fd):
            return False
    elif status.st_rdev != below.st_rdev:
        return False
    return xattrs.read(f"/proc/self/fd/{dir_fd}/{name}") == xattrs.read(f"/proc/self/fd/{below_fd}/{name}")


def _same_status(one: os.stat_result, other: os.stat_result, mtime: int) -> bool:
    return (
        one.st_mode == other.st_mode
        and one.st_uid == other.st_uid
        and one.st_gid == other.st_gid
        and (mtime == other.st_mtime_ns // _SECOND or one.st_mtime_ns == other.st_mtime_ns)
    )


def _same_file(dir_fd: int, below_fd: int, name: str) -> bool:
    one = os.open(name, _READ, dir_fd=dir_fd)
    try:
        other = os.open(name, _READ, dir_fd=below_fd)
        try:
            return xattrs.read(one) == xattrs.read(other) and _same_content(one, other)
        finally:
            os.close(other)
    finally:
        os.close(one)


def _same_content(one: int, other: int) -> bool:
    while True:
        left, right = _block(one), _block(other)
        if left != right:
            return False
        if not left:
            return True


def _block(fd: int) -> bytes:
    """A whole block, or what is left: two files are compared at equal offsets however short a read is."""
    data = os.read(fd, _CHUNK)
    while 0 < len(data) < _CHUNK:
        more = os.read(fd, _CHUNK - len(data))
        if not more:
            break
        data += more
    return data
