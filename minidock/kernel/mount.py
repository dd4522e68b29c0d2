"""Mounts: the classic calls and the descriptor-based ones of Linux 5.2 and newer.

Sources: mount(2), umount2(2), pivot_root(2), fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2),
mount_setattr(2), and Documentation/filesystems/overlayfs.rst. Every function raises OSError with errno and path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Sequence

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

OVERLAY_STRATEGIES = ("append", "string", "child")
_FSCONFIG_STRING_MAX = 255
_Options = Sequence[tuple[str, str | None]]
_OVERLAY_WRITABLE_OPTIONS = ("index", "redirect_dir", "metacopy")


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


def _set_options(fs_fd: int, options: _Options) -> None:
    for key, value in options:
        if value is None:
            fsconfig_flag(fs_fd, key)
        else:
            fsconfig_string(fs_fd, key, value)


def new_mount(fstype: str, options: Sequence[tuple[str, str | None]] = (), *, attrs: int = 0, source: str = "") -> int:
    """A descriptor of a detached mount of a new file system, from ``fsopen`` to ``fsmount``.

    An option's value None sets a flag. When the file system refuses, OSError.strerror is its own text.
    """
    fs_fd = fsopen(fstype)
    try:
        if source:
            fsconfig_string(fs_fd, "source", source)
        _set_options(fs_fd, options)
        fsconfig_create(fs_fd)
        return fsmount(fs_fd, attrs)
    finally:
        os.close(fs_fd)


def overlay(
    lowers: Sequence[str], *, upper: str = "", work: str = "", volatile: bool = False, strategy: str = ""
) -> int:
    """A descriptor of a detached overlay mount of ``lowers``, topmost first; read-only without ``upper`` and ``work``.

    A writable one has ``index=off,redirect_dir=off,metacopy=off``, so that its upper directory can become a layer. A
    lower that comes again further down is left out (the kernel refuses it with ELOOP, and it could add nothing). A
    read-only overlay of one directory is a read-only bind mount of it, as overlayfs wants two.

    With ``volatile`` (Linux 5.10) nothing is written through to the disk, neither by fsync nor at the unmount; the mark
    by which overlayfs refuses to mount such an upper directory again is removed first.

    ``strategy``, one of OVERLAY_STRATEGIES, forces a way to hand the directories over; without it the first that this
    kernel and these paths allow is taken: "append", each by itself (``lowerdir+``, Linux 6.7); "string", all in one
    parameter of 255 bytes; "child", by mount(2) in a child with a mount namespace of its own, with descriptor numbers
    as relative paths: 500 layers, the kernel's limit, fit in its 4095 bytes.
    """
    unique = list(dict.fromkeys(lowers))
    if not unique:
        raise OSError(errno.EINVAL, "an overlay needs at least one lower directory", upper)
    if not upper and len(unique) == 1:
        return _read_only_clone(unique[0])
    if volatile:
        _forget_volatile(work)
    options = _overlay_options(upper, volatile)
    chosen = strategy or _overlay_strategy(unique, upper, work)
    if chosen == "append":
        return _overlay_appended(unique, upper, work, options)
    if chosen == "string":
        return _overlay_in_one_string(unique, upper, work, options)
    if chosen == "child":
        return _mounted_by_child(lambda: _overlay_classic(unique, upper, work, options))
    raise ValueError(f"unknown overlay strategy {strategy!r}")


def _forget_volatile(work: str) -> None:
    """Remove the mark of a former volatile mount, with the file that Linux 6.2 and newer keep in it."""
    mark = f"{work}/work/incompat/volatile"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{mark}/dirty")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(mark)


def _overlay_options(upper: str, volatile: bool) -> list[tuple[str, str | None]]:
    options: list[tuple[str, str | None]] = [(name, "off") for name in _OVERLAY_WRITABLE_OPTIONS] if upper else []
    return [*options, ("volatile", None)] if volatile else options


def _overlay_strategy(lowers: Sequence[str], upper: str, work: str) -> str:
    if _kernel_release() >= (6, 7):
        return "append"
    joined = ":".join(lowers)
    short = max(len(os.fsencode(value)) for value in (joined, upper, work)) <= _FSCONFIG_STRING_MAX
    return "string" if short and not any(_needs_escape(path) for path in (*lowers, upper, work)) else "child"


def _kernel_release() -> tuple[int, int]:
    # An unknown parameter is found by older kernels only when the mount is made, as a bare EINVAL that many other
    # mistakes share: the version is the only sure sign.
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor.partition("-")[0])


def _needs_escape(path: str) -> bool:
    return ":" in path or "," in path or "\\" in path


def _overlay_appended(lowers: Sequence[str], upper: str, work: str, options: _Options) -> int:
    fs_fd = fsopen("overlay")
    try:
        fsconfig_string(fs_fd, "source", "overlay")
        for path in lowers:
            _fsconfig_directory(fs_fd, "lowerdir+", path)
        if upper:
            _fsconfig_directory(fs_fd, "upperdir", upper)
            _fsconfig_directory(fs_fd, "workdir", work)
        _set_options(fs_fd, options)
        fsconfig_create(fs_fd)
        return fsmount(fs_fd)
    finally:
        os.close(fs_fd)


def _fsconfig_directory(fs_fd: int, key: str, path: str) -> None:
    if len(os.fsencode(path)) <= _FSCONFIG_STRING_MAX and not _needs_escape(path):
        fsconfig_string(fs_fd, key, path)
        return
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsconfig_fd(fs_fd, key, fd, path=path)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Descriptors are taken from Linux 6.13 on; before, a path that leads to one is, and is resolved at once.
        fsconfig_string(fs_fd, key, f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _overlay_in_one_string(lowers: Sequence[str], upper: str, work: str, options: _Options) -> int:
    directories: list[tuple[str, str | None]] = [("lowerdir", ":".join(lowers))]
    if upper:
        directories += [("upperdir", upper), ("workdir", work)]
    try:
        return new_mount("overlay", [*directories, *options], source="overlay")
    except OSError as error:
        # Older kernels find out only at the end, where no single parameter is to blame.
        raise OSError(error.errno, error.strerror, error.filename or ":".join(lowers)) from None


def _overlay_classic(lowers: Sequence[str], upper: str, work: str, options: _Options) -> str:
    """Mount on the first lower directory, in a process that exists for nothing else; returns the mount point."""

    def number(path: str) -> str:
        return str(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    data = "lowerdir=" + ":".join([number(path) for path in lowers])
    if upper:
        data += f",upperdir={number(upper)},workdir={number(work)}"
        data += "".join(f",{name}" if value is None else f",{name}={value}" for name, value in options)
    target = os.path.abspath(lowers[0])
    os.chdir("/proc/self/fd")
    mount("overlay", target, "overlay", 0, data)
    return target


def _read_only_clone(path: str) -> int:
    fd = open_tree(path)
    try:
        # A clone of a shared mount is its peer: what is mounted on it would appear on the host's, too.
        mount_setattr(fd, attr_set=MOUNT_ATTR_RDONLY, propagation=MS_PRIVATE)
    except OSError as error:
        os.close(fd)
        if error.errno != errno.ENOSYS:
            raise
        return _mounted_by_child(lambda: _read_only_bind_classic(path))
    return fd


def _read_only_bind_classic(path: str) -> str:
    target = os.path.abspath(path)
    mount(target, target, "", MS_BIND)
    mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY)
    return target


def _mounted_by_child(mounter: Callable[[], str]) -> int:
    """Run ``mounter`` in a child with a mount namespace of its own and take a detached clone of the mount whose path
    it returns. Nothing appears in the caller's namespace."""
    import socket

    from minidock.kernel import process
    from minidock.kernel.namespaces import CLONE_NEWNS

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:

        def child() -> int:
            try:
                mount("", "/", "", MS_REC | MS_PRIVATE)
                process.send_fds(theirs.fileno(), b"mount", [open_tree(mounter())])
            except OSError as error:
                process.send_failure(theirs.fileno(), process.failure_of(error, "mount"))
                return 1
            return 0

        with process.spawn(child, flags=CLONE_NEWNS) as helper:
            theirs.close()
            data, fds = process.recv_fds(ours.fileno(), 1)
            helper.wait()
    if fds:
        return fds[0]
    failure = process.parse_failure(data)
    raise failure.error() if failure else OSError(errno.ECHILD, "the mounting process died")
