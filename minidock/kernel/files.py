"""Files: durability, renames, locks, extended attributes, copies and holes.

Sources: syncfs(2), sync_file_range(2), rename(2), flock(2), xattr(7), copy_file_range(2), sendfile(2), lseek(2),
statfs(2), Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from minidock.kernel.syscall import (
    SYS_FSTATFS,
    SYS_RENAMEAT2,
    SYS_STATFS,
    SYS_SYNC_FILE_RANGE,
    SYS_SYNCFS,
    cstring,
    syscall,
)

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

_SYNC_FILE_RANGE_WRITE = 2
_FICLONE = 0x40049409
_CHUNK = 1 << 20
_STATFS_SIZE = 256
# include/uapi/linux/magic.h and the file systems' own headers.
_FS_NAMES = {
    0xEF53: "extfs",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0xE0F5E1E2: "erofs",
    0x73717368: "squashfs",
    0x6969: "nfs",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x61756673: "aufs",
    0xF15F: "ecryptfs",
    0x4D44: "msdos",
    0x2011BAB0: "exfat",
    0x7366746E: "ntfs3",
    0x3153464A: "jfs",
    0x52654973: "reiserfs",
    0x858458F6: "ramfs",
    0xFF534D42: "cifs",
    0x0027E0EB: "cgroup",
    0x63677270: "cgroup2",
    0x9FA0: "proc",
    0x62656572: "sysfs",
}
# What the kernel answers when two descriptors can't be copied between by the faster calls.
_NOT_COPYABLE = (
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
    errno.EISDIR,
    errno.ETXTBSY,
)


def syncfs(fd: int) -> None:
    """Write out the whole file system that ``fd`` lies on, and report its write errors (Linux 5.8)."""
    syscall(SYS_SYNCFS, fd)


def start_writeback(fd: int, offset: int, size: int) -> None:
    """Have the kernel begin to write a part of a file out, without waiting for it (sync_file_range(2)).

    It promises nothing, but a later fdatasync has less to do.
    """
    syscall(SYS_SYNC_FILE_RANGE, fd, offset, size, _SYNC_FILE_RANGE_WRITE)


def renameat2(old_dir_fd: int, old: str, new_dir_fd: int, new: str, flags: int = 0) -> None:
    """rename(2) with RENAME_NOREPLACE (FileExistsError when ``new`` exists) or RENAME_EXCHANGE."""
    try:
        syscall(SYS_RENAMEAT2, old_dir_fd, cstring(old), new_dir_fd, cstring(new), flags)
    except OSError as error:
        raise OSError(error.errno, error.strerror, old, None, new) from None


def lock_exclusive(fd: int, *, block: bool = True) -> bool:
    """Take the flock(2) of an open file alone; False when ``block`` is false and another holds it."""
    return _lock(fd, fcntl.LOCK_EX, block)


def lock_shared(fd: int, *, block: bool = True) -> bool:
    """Take the flock(2) of an open file together with other sharers; False as with ``lock_exclusive``."""
    return _lock(fd, fcntl.LOCK_SH, block)


def _lock(fd: int, kind: int, block: bool) -> bool:
    try:
        fcntl.flock(fd, kind if block else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def list_xattrs(file: str | int, *, follow: bool = False) -> dict[str, bytes]:
    """All extended attributes of a path or descriptor, sorted by name; {} where the file system has none.

    ``follow`` is for a path that is a symlink. A descriptor may be an O_PATH one, of a symlink too; that needs /proc.
    """
    target, follow = _xattr_target(file, follow)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
        return {name: os.getxattr(target, name, follow_symlinks=follow) for name in sorted(names)}
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise


def get_xattr(file: str | int, name: str, *, follow: bool = False) -> bytes | None:
    """One extended attribute, as ``list_xattrs`` finds it; None when there is none."""
    target, follow = _xattr_target(file, follow)
    try:
        return os.getxattr(target, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def set_xattr(file: str | int, name: str, value: bytes, *, follow: bool = False) -> None:
    """Set an extended attribute of a path or descriptor (an O_PATH one too)."""
    target, follow = _xattr_target(file, follow)
    os.setxattr(target, name, value, follow_symlinks=follow)


def remove_xattr(file: str | int, name: str, *, follow: bool = False) -> None:
    """Remove an extended attribute of a path or descriptor (an O_PATH one too)."""
    target, follow = _xattr_target(file, follow)
    os.removexattr(target, name, follow_symlinks=follow)


def _xattr_target(file: str | int, follow: bool) -> tuple[str | int, bool]:
    if isinstance(file, str):
        return file, follow
    # The f*xattr calls refuse O_PATH descriptors with EBADF. The link below leads to the file itself, and to no
    # further: a symlink that a descriptor names is not followed.
    if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_PATH:
        return f"/proc/self/fd/{file}", True
    return file, True


def data_segments(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the parts of a file that are not holes, in order, up to ``size`` bytes.

    A file system without SEEK_DATA shows one segment. Moves the descriptor's offset.
    """
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno != errno.EINVAL:
                raise
            start, end = position, size
        if start >= size:
            return
        yield start, min(end, size) - start
        position = end


def copy_range(src_fd: int, dst_fd: int, length: int, *, sparse: bool = False) -> int:
    """Copy ``length`` bytes from the descriptors' offsets on, which move; returns how many there were to copy.

    Inside the kernel where it can (copy_file_range, else sendfile), by read and write where not. With ``sparse``, which
    needs two regular files at equal offsets and an empty destination, holes stay holes. Raises OSError.
    """
    if sparse:
        return _copy_sparse(src_fd, dst_fd, length)
    left = length
    for step in (_copy_file_range, _sendfile, _read_write):
        try:
            while left > 0:
                count = step(src_fd, dst_fd, min(left, 1 << 30))
                if count == 0:
                    break
                left -= count
        except OSError as error:
            if step is _read_write or error.errno not in _NOT_COPYABLE:
                raise
        if left == 0:
            break
        # Files of /proc and /sys look empty to the faster calls: only a read says that there is no more.
    return length - left


def _copy_file_range(src_fd: int, dst_fd: int, count: int) -> int:
    return os.copy_file_range(src_fd, dst_fd, count)


def _sendfile(src_fd: int, dst_fd: int, count: int) -> int:
    return os.sendfile(dst_fd, src_fd, None, count)


def _read_write(src_fd: int, dst_fd: int, count: int) -> int:
    view = memoryview(os.read(src_fd, min(count, _CHUNK)))
    done = 0
    while done < len(view):
        done += os.write(dst_fd, view[done:])
    return done


def _copy_sparse(src_fd: int, dst_fd: int, length: int) -> int:
    base = os.lseek(src_fd, 0, os.SEEK_CUR)
    end = min(base + length, os.fstat(src_fd).st_size)
    for start, count in data_segments(src_fd, end):
        first = max(start, base)
        if first < start + count:
            os.lseek(src_fd, first, os.SEEK_SET)
            os.lseek(dst_fd, first, os.SEEK_SET)
            copy_range(src_fd, dst_fd, start + count - first)
    os.lseek(src_fd, end, os.SEEK_SET)
    os.lseek(dst_fd, end, os.SEEK_SET)
    if os.fstat(dst_fd).st_size < end:
        os.ftruncate(dst_fd, end)
    return max(end - base, 0)


def clone_file(src_fd: int, dst_fd: int) -> bool:
    """Let ``dst_fd`` share the blocks of ``src_fd`` (FICLONE, ioctl_ficlonerange(2)); False where it can't."""
    try:
        fcntl.ioctl(dst_fd, _FICLONE, src_fd)
    except OSError as error:
        if error.errno in (*_NOT_COPYABLE, errno.ENOTTY):
            return False
        raise
    return True


def fs_magic(file: str | int) -> int:
    """The f_type of the file system that a path or descriptor lies on (statfs(2))."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if isinstance(file, int):
        syscall(SYS_FSTATFS, file, buffer)
    else:
        syscall(SYS_STATFS, cstring(file), buffer, path=file)
    magic: int = struct.unpack_from("q", buffer)[0]
    return magic & 0xFFFFFFFF


def fs_name(magic: int) -> str:
    """A file system's name as docker's ``info`` shows it ("extfs", "xfs"), or its number in hexadecimal."""
    return _FS_NAMES.get(magic, f"0x{magic:x}")


def whiteout(dir_fd: int, name: str) -> None:
    """Make overlayfs's mark for a name that is deleted from the layers below: a character device 0:0."""
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=dir_fd)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether a file's status is that of overlayfs's mark for a deleted name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
