"""Mounts: the classic calls and the descriptor-based ones of Linux 5.2 and newer.

Sources: mount(2), umount2(2), pivot_root(2), fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2),
mount_setattr(2). Every function raises OSError with errno and path.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence

from minidock.kernel.syscall import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_MOUNT,
    SYS_MOUNT_SETATTR,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
    SYS_PIVOT_ROOT,
    SYS_UMOUNT2,
    cstring,
    syscall,
)

MS_RDONLY = 1
MS_NOSUID = 1 << 1
MS_NODEV = 1 << 2
MS_NOEXEC = 1 << 3
MS_SYNCHRONOUS = 1 << 4
MS_REMOUNT = 1 << 5
MS_MANDLOCK = 1 << 6
MS_DIRSYNC = 1 << 7
MS_NOSYMFOLLOW = 1 << 8
MS_NOATIME = 1 << 10
MS_NODIRATIME = 1 << 11
MS_BIND = 1 << 12
MS_MOVE = 1 << 13
MS_REC = 1 << 14
MS_SILENT = 1 << 15
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC

FSCONFIG_STRING_MAX = 255

Options = Sequence[tuple[str, str | None]]


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2). ``data`` beyond 4095 bytes is refused (E2BIG): the kernel would cut it silently."""
    encoded = cstring(data)
    if len(encoded) > 4095:
        raise OSError(errno.E2BIG, f"mount options of {len(encoded)} bytes", target)
    syscall(SYS_MOUNT, cstring(source), cstring(target), cstring(fstype), flags, encoded or None, path=target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2): ``flags`` of MNT_* and UMOUNT_NOFOLLOW."""
    syscall(SYS_UMOUNT2, cstring(target), flags, path=target)


def pivot_root(new: str, old: str) -> None:
    """Make ``new`` the root mount and move the former one to ``old`` (pivot_root(2)); both may be "."."""
    syscall(SYS_PIVOT_ROOT, cstring(new), cstring(old), path=new)


def chroot(path: str) -> None:
    """Make ``path`` the calling process's root directory (chroot(2)); its current directory stays where it is."""
    os.chroot(path)


def fsopen(fstype: str) -> int:
    """A CLOEXEC configuration descriptor of a new file system. ENODEV when the kernel does not know ``fstype``."""
    return syscall(SYS_FSOPEN, cstring(fstype), _FSOPEN_CLOEXEC, path=fstype)


def fsconfig_string(fs_fd: int, key: str, value: str) -> None:
    """Set a parameter. The kernel takes up to 255 bytes (EINVAL beyond)."""
    _fsconfig(fs_fd, _FSCONFIG_SET_STRING, key, cstring(value), path=value)


def fsconfig_flag(fs_fd: int, key: str) -> None:
    """Set a parameter without a value."""
    _fsconfig(fs_fd, _FSCONFIG_SET_FLAG, key, None, path=key)


def fsconfig_fd(fs_fd: int, key: str, value: int, *, path: str = "") -> None:
    """Set a parameter to a descriptor; ``path`` only serves the error."""
    _fsconfig(fs_fd, _FSCONFIG_SET_FD, key, None, number=value, path=path or key)


def fsconfig_create(fs_fd: int) -> None:
    """Make the file system from what was set (the superblock)."""
    _fsconfig(fs_fd, _FSCONFIG_CMD_CREATE, "", None)


def _fsconfig(fs_fd: int, command: int, key: str, value: bytes | None, *, number: int = 0, path: str = "") -> None:
    try:
        syscall(SYS_FSCONFIG, fs_fd, command, cstring(key) or None, value, number, path=path)
    except OSError as error:
        raise OSError(error.errno, _complaint(fs_fd) or error.strerror, path or None) from None


def _complaint(fs_fd: int) -> str:
    """What the file system wrote about its refusal, read from its configuration descriptor; often empty."""
    lines: list[str] = []
    while True:
        try:
            line = os.read(fs_fd, 4096).decode("utf-8", "replace").strip()
        except OSError:
            return "; ".join(lines)
        # "e overlay: text": the first letter is the severity (error, warning, information).
        lines.append(line[2:] if line[1:2] == " " else line)


def fsmount(fs_fd: int, attrs: int = 0) -> int:
    """A CLOEXEC descriptor of a detached mount of a created file system; ``attrs`` of MOUNT_ATTR_*."""
    return syscall(SYS_FSMOUNT, fs_fd, _FSMOUNT_CLOEXEC, attrs)


def move_mount(mount_fd: int, target: int | str) -> None:
    """Attach the detached mount ``mount_fd`` to a path (a final symlink is not followed) or an O_PATH descriptor."""
    if isinstance(target, int):
        flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
        syscall(SYS_MOVE_MOUNT, mount_fd, b"", target, b"", flags, path=f"/proc/self/fd/{target}")
    else:
        syscall(SYS_MOVE_MOUNT, mount_fd, b"", AT_FDCWD, cstring(target), _MOVE_MOUNT_F_EMPTY_PATH, path=target)


def open_tree(path: str | int, *, recursive: bool = False, clone: bool = True) -> int:
    """A CLOEXEC descriptor of the mount at a path (symlinks followed) or of what a descriptor names.

    ``clone`` makes a detached bind mount of it, ``recursive`` takes the mounts below along. The clone of a shared mount
    is its peer until ``mount_setattr`` makes it private: what is mounted on one appears on the other.
    """
    flags = _OPEN_TREE_CLOEXEC | (_OPEN_TREE_CLONE if clone else 0) | (AT_RECURSIVE if recursive else 0)
    if isinstance(path, int):
        return syscall(SYS_OPEN_TREE, path, b"", flags | AT_EMPTY_PATH, path=f"/proc/self/fd/{path}")
    return syscall(SYS_OPEN_TREE, AT_FDCWD, cstring(path), flags, path=path)


def mount_setattr(
    fd: int, *, attr_set: int = 0, attr_clear: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    """Change the mount that ``fd`` names: MOUNT_ATTR_* to set and to clear, and MS_PRIVATE, MS_SLAVE, MS_SHARED or
    MS_UNBINDABLE (Linux 5.12: ENOSYS before)."""
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd, each u64.
    attributes = struct.pack("4Q", attr_set, attr_clear, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(SYS_MOUNT_SETATTR, fd, b"", flags, attributes, len(attributes), path=f"/proc/self/fd/{fd}")


def fsconfig_options(fs_fd: int, options: Options) -> None:
    """Set parameters in their order; a value None sets a flag."""
    for key, value in options:
        if value is None:
            fsconfig_flag(fs_fd, key)
        else:
            fsconfig_string(fs_fd, key, value)


def new_mount(fstype: str, options: Options = (), *, attrs: int = 0, source: str = "") -> int:
    """A descriptor of a detached mount of a new file system, from ``fsopen`` to ``fsmount``.

    An option's value None sets a flag. When the file system refuses, OSError.strerror is its own text.
    """
    fs_fd = fsopen(fstype)
    try:
        if source:
            fsconfig_string(fs_fd, "source", source)
        fsconfig_options(fs_fd, options)
        fsconfig_create(fs_fd)
        return fsmount(fs_fd, attrs)
    finally:
        os.close(fs_fd)
