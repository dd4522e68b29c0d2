"""Mount points that a step's mounts needed leave no trace in its layer."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from minidock.kernel.resolve import open_beneath

if TYPE_CHECKING:
    from collections.abc import Collection

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_stubs(upper_fd: int, below_fd: int, stubs: Collection[str]) -> None:
    """Remove from the writable layer ``upper_fd`` the ``stubs`` (absolute paths) that are still empty and that the view
    below does not have, and the directories that were made for them alone.

    Whoever made a stub gave its directory back the time from before, and so does this: a directory has another time
    than below if, and only if, the step itself changed it, however soon. Symbolic links are never followed. Raises
    OSError.
    """
    wanted = sorted({path.strip("/") for path in stubs} - {""}, key=lambda path: -path.count("/"))
    for stub in wanted:
        path = stub
        while path and _remove(upper_fd, below_fd, path):
            path = path.rpartition("/")[0]


def _remove(upper_fd: int, below_fd: int, path: str) -> bool:
    """Remove one stub; whether it was one."""
    parent, _, name = path.rpartition("/")
    fd = _open(upper_fd, parent)
    if fd < 0:
        return False
    try:
        status = _status(name, fd)
        if status is None or _is_below(below_fd, parent, name):
            return False
        before = os.fstat(fd)
        if not _unmake(name, fd, status):
            return False
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        return True
    finally:
        os.close(fd)


def _unmake(name: str, dir_fd: int, status: os.stat_result) -> bool:
    if stat.S_ISDIR(status.st_mode):
        try:
            os.rmdir(name, dir_fd=dir_fd)
        except OSError:
            return False
        return True
    if stat.S_ISREG(status.st_mode) and status.st_size == 0 and status.st_nlink == 1:
        os.unlink(name, dir_fd=dir_fd)
        return True
    return False


def _is_below(below_fd: int, parent: str, name: str) -> bool:
    fd = _open(below_fd, parent)
    if fd < 0:
        return False
    try:
        return _status(name, fd) is not None
    finally:
        os.close(fd)


def _open(root_fd: int, path: str) -> int:
    """The directory, or -1 where it is none or behind a symbolic link."""
    if root_fd < 0:
        return -1
    try:
        return open_beneath(root_fd, path or ".", _OPEN_DIR, symlinks=False)
    except OSError:
        return -1


def _status(name: str, dir_fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
