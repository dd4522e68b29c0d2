"""Copying the contents of a directory with everything that belongs to them: owner, mode, times, xattrs, links, holes.

Source and destination are directory descriptors and no symbolic link is ever followed, so that nothing outside of the
two trees is read or written, whoever made the source.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from minidock.kernel import files as kernel_files

_NOFOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW


def is_empty(directory_fd: int) -> bool:
    """True when the directory has no entries. Raises OSError."""
    with os.scandir(directory_fd) as entries:
        return not any(entries)


def copy_contents(source_fd: int, target_fd: int) -> None:
    """Copy every entry of one directory into another that lacks them; sockets are left out.

    Hard links among the entries stay hard links. Raises OSError naming the entry.
    """
    _Copy(target_fd).directory(source_fd, target_fd, "")


def copy_metadata(source_fd: int, target_fd: int) -> None:
    """Give an open file or directory the owner, mode and extended attributes of another. Raises OSError."""
    status = os.fstat(source_fd)
    os.fchown(target_fd, status.st_uid, status.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    _copy_xattrs(f"/proc/self/fd/{source_fd}", f"/proc/self/fd/{target_fd}", follow=True)


class _Copy:
    """One run: remembers where the first name of each hard-linked file went."""

    __slots__ = ("linked", "top")

    def __init__(self, top: int) -> None:
        self.top = top
        self.linked: dict[tuple[int, int], str] = {}

    def directory(self, source: int, target: int, path: str) -> None:
        for name in _names(source):
            try:
                self.entry(source, target, name, f"{path}/{name}" if path else name)
            except OSError as error:
                if not error.filename or "/" not in str(error.filename):
                    error.filename = f"{path}/{name}" if path else name
                raise

    def entry(self, source: int, target: int, name: str, path: str) -> None:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            return
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and kind != stat.S_IFDIR:
            if key in self.linked:
                os.link(self.linked[key], name, src_dir_fd=self.top, dst_dir_fd=target, follow_symlinks=False)
                return
            self.linked[key] = path
        if kind == stat.S_IFDIR:
            self.subdirectory(source, target, name, path)
        elif kind == stat.S_IFREG:
            _copy_file(source, target, name, status.st_size)
        else:
            if kind == stat.S_IFLNK:
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            else:
                os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
            if kind != stat.S_IFLNK:
                os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
            _copy_xattrs(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}", follow=False)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)

    def subdirectory(self, source: int, target: int, name: str, path: str) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        inner_source = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            inner_target = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                self.directory(inner_source, inner_target, path)
                copy_metadata(inner_source, inner_target)
            finally:
                os.close(inner_target)
        finally:
            os.close(inner_source)


def _names(directory_fd: int) -> Iterator[str]:
    with os.scandir(directory_fd) as entries:
        listed = [entry.name for entry in entries]
    yield from listed


def _copy_file(source: int, target: int, name: str, size: int) -> None:
    source_fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _NOFOLLOW, dir_fd=source)
    try:
        target_fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600, dir_fd=target)
        try:
            for start, length in kernel_files.data_segments(source_fd, size):
                os.lseek(source_fd, start, os.SEEK_SET)
                os.lseek(target_fd, start, os.SEEK_SET)
                kernel_files.copy_range(source_fd, target_fd, length)
            os.ftruncate(target_fd, size)
            copy_metadata(source_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


def _copy_xattrs(source: str, target: str, *, follow: bool) -> None:
    for name, value in kernel_files.list_xattrs(source, follow=follow).items():
        if name.startswith("trusted.overlay."):
            continue
        try:
            kernel_files.set_xattr(target, name, value, follow=follow)
        except OSError as error:
            # A label of the host's security module is not the tree's own; where the volume's file system has no place
            # for it nothing is lost.
            if error.errno == errno.ENOTSUP and name.startswith("security.") and name != "security.capability":
                continue
            raise
