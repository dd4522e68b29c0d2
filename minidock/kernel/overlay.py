"""The overlay mount: many layers as one tree, with or without a writable one on top.

Source: Documentation/filesystems/overlayfs.rst. Every function raises OSError with errno and path.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence

from minidock.kernel import mount

STRATEGIES = ("append", "string", "thread")
# From here on overlayfs clones mounts that are in no mount namespace, too (clone_private_mount() in fs/namespace.c).
_DETACHED_LOWERS = (6, 15)
_WRITABLE_OPTIONS = ("index", "redirect_dir", "metacopy")


def overlay(
    lowers: Sequence[str | int],
    *,
    upper: str = "",
    work: str = "",
    volatile: bool = False,
    xino: bool = False,
    strategy: str = "",
) -> int:
    """A descriptor of a detached overlay mount of ``lowers``, topmost first; read-only without ``upper`` and ``work``.

    A lower is a path, or the descriptor of a detached mount, which is used up: the kernel takes a clone of its own, so
    that it may be closed. A path or descriptor that comes again further down is left out (the
    kernel refuses it with ELOOP, and it could add nothing). A read-only overlay of one lower is a read-only bind mount
    of it, as overlayfs wants two. A writable one has ``index=off,redirect_dir=off,metacopy=off``, so that its upper
    directory can become a layer.

    With ``volatile`` (Linux 5.10) nothing is written through to the disk, neither by fsync nor at the unmount; the mark
    by which overlayfs refuses to mount such an upper directory again is removed first.

    ``xino`` is for layers on other file systems than the upper directory, or on several: every file has the overlay's
    own st_dev and a number that is unique in it and outlives a copy-up, as is always so on a single file system.

    ``strategy``, one of STRATEGIES, forces a way to hand the directories over; without it the first that this
    kernel and these paths allow is taken: "append", each by itself (``lowerdir+``, Linux 6.7); "string", all in one
    parameter of 255 bytes; "thread", by mount(2) in a thread with a mount namespace of its own, with descriptor numbers
    as relative paths: 500 layers, the kernel's limit, fit in its 4095 bytes. Descriptors go by "append" alone.
    """
    unique = list(dict.fromkeys(lowers))
    if not unique:
        raise OSError(errno.EINVAL, "an overlay needs at least one lower directory", upper)
    if not upper and len(unique) == 1:
        return _read_only_clone(unique[0])
    if volatile:
        _forget_volatile(work)
    options = _options(writable=bool(upper), volatile=volatile, xino=xino)
    paths = [lower for lower in unique if isinstance(lower, str)]
    chosen = strategy or ("append" if len(paths) < len(unique) else _strategy(paths, upper, work))
    if chosen not in STRATEGIES:
        raise ValueError(f"unknown overlay strategy {strategy!r}")
    if chosen == "append":
        if len(paths) < len(unique) and _kernel_release() < _DETACHED_LOWERS:
            return _of_attached(unique, upper, work, options)
        return _appended(unique, upper, work, options)
    if len(paths) < len(unique):
        raise ValueError(f"the overlay strategy {strategy!r} takes no descriptors")
    if chosen == "string":
        return _in_one_string(paths, upper, work, options)
    return _mounted_by_thread(lambda: _classic(paths, upper, work, options))


def _forget_volatile(work: str) -> None:
    """Remove the mark of a former volatile mount, with the file that Linux 6.2 and newer keep in it."""
    mark = f"{work}/work/incompat/volatile"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{mark}/dirty")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(mark)


def _options(*, writable: bool, volatile: bool, xino: bool) -> mount.Options:
    options: list[tuple[str, str | None]] = [(name, "off") for name in _WRITABLE_OPTIONS] if writable else []
    if volatile:
        options.append(("volatile", None))
    if xino:
        options.append(("xino", "on"))
    return options


def _strategy(lowers: Sequence[str], upper: str, work: str) -> str:
    if _kernel_release() >= (6, 7):
        return "append"
    joined = ":".join(lowers)
    short = max(len(os.fsencode(value)) for value in (joined, upper, work)) <= mount.FSCONFIG_STRING_MAX
    return "string" if short and not any(_needs_escape(path) for path in (*lowers, upper, work)) else "thread"


def _kernel_release() -> tuple[int, int]:
    # An unknown parameter is found by older kernels only when the mount is made, as a bare EINVAL that many other
    # mistakes share: the version is the only sure sign.
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor.partition("-")[0])


def _needs_escape(path: str) -> bool:
    return ":" in path or "," in path or "\\" in path


def _appended(lowers: Sequence[str | int], upper: str, work: str, options: mount.Options) -> int:
    fs_fd = mount.fsopen("overlay")
    try:
        mount.fsconfig_string(fs_fd, "source", "overlay")
        for lower in lowers:
            if isinstance(lower, int):
                _fsconfig_descriptor(fs_fd, "lowerdir+", lower)
            else:
                _fsconfig_directory(fs_fd, "lowerdir+", lower)
        if upper:
            _fsconfig_directory(fs_fd, "upperdir", upper)
            _fsconfig_directory(fs_fd, "workdir", work)
        mount.fsconfig_options(fs_fd, options)
        mount.fsconfig_create(fs_fd)
        return mount.fsmount(fs_fd)
    finally:
        os.close(fs_fd)


def _fsconfig_directory(fs_fd: int, key: str, path: str) -> None:
    if len(os.fsencode(path)) <= mount.FSCONFIG_STRING_MAX and not _needs_escape(path):
        mount.fsconfig_string(fs_fd, key, path)
        return
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _fsconfig_descriptor(fs_fd, key, fd, path)
    finally:
        os.close(fd)


def _fsconfig_descriptor(fs_fd: int, key: str, fd: int, path: str = "") -> None:
    link = f"/proc/self/fd/{fd}"
    try:
        mount.fsconfig_fd(fs_fd, key, fd, path=path or link)
    except OSError as error:
        # Descriptors are taken from Linux 6.13 on (EBADF for an O_PATH one before); a path that leads to one is always
        # taken, and is resolved at once.
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
        mount.fsconfig_string(fs_fd, key, link)


def _of_attached(lowers: Sequence[str | int], upper: str, work: str, options: mount.Options) -> int:
    """Make the overlay in a thread's mount namespace in which the detached mounts are attached, one upon the other, on
    its root, where nothing looks."""
    from minidock.kernel.descriptors import from_thread
    from minidock.kernel.namespaces import CLONE_NEWNS

    def make() -> list[int]:
        mount.mount("", "/", "", mount.MS_REC | mount.MS_PRIVATE)
        for lower in lowers:
            if isinstance(lower, int):
                mount.move_mount(lower, "/")
        return [_appended(lowers, upper, work, options)]

    (made,) = from_thread(make, flags=CLONE_NEWNS)
    return made


def _in_one_string(lowers: Sequence[str], upper: str, work: str, options: mount.Options) -> int:
    directories: list[tuple[str, str | None]] = [("lowerdir", ":".join(lowers))]
    if upper:
        directories += [("upperdir", upper), ("workdir", work)]
    try:
        return mount.new_mount("overlay", [*directories, *options], source="overlay")
    except OSError as error:
        # Older kernels find out only at the end, where no single parameter is to blame.
        raise OSError(error.errno, error.strerror, error.filename or ":".join(lowers)) from None


def _classic(lowers: Sequence[str], upper: str, work: str, options: mount.Options) -> str:
    """Mount on the first lower directory, in a thread that exists for nothing else; returns the mount point."""
    opened: list[int] = []

    def number(path: str) -> str:
        opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return str(opened[-1])

    try:
        data = "lowerdir=" + ":".join([number(path) for path in lowers])
        if upper:
            data += f",upperdir={number(upper)},workdir={number(work)}"
            data += "".join(f",{name}" if value is None else f",{name}={value}" for name, value in options)
        target = os.path.abspath(lowers[0])
        os.chdir("/proc/self/fd")
        mount.mount("overlay", target, "overlay", 0, data)
    finally:
        for fd in opened:
            os.close(fd)
    return target


def _read_only_clone(lower: str | int) -> int:
    try:
        fd = mount.open_tree(lower)
    except OSError as error:
        if error.errno != errno.EINVAL or not isinstance(lower, int):
            raise
        # A detached mount that came from another mount namespace is cloned only there: it serves as it is.
        fd = os.dup(lower)
    try:
        # A clone of a shared mount is its peer: what is mounted on it would appear on the host's, too.
        mount.mount_setattr(fd, attr_set=mount.MOUNT_ATTR_RDONLY, propagation=mount.MS_PRIVATE)
    except OSError as error:
        os.close(fd)
        if error.errno != errno.ENOSYS or isinstance(lower, int):
            raise
        return _mounted_by_thread(lambda: _read_only_bind_classic(lower))
    return fd


def _read_only_bind_classic(path: str) -> str:
    target = os.path.abspath(path)
    mount.mount(target, target, "", mount.MS_BIND)
    mount.mount("", target, "", mount.MS_REMOUNT | mount.MS_BIND | mount.MS_RDONLY)
    return target


def _mounted_by_thread(mounter: Callable[[], str]) -> int:
    """Run ``mounter`` in a thread with a mount namespace of its own and take a detached clone of the mount whose path
    it returns. Nothing appears in the caller's namespace."""
    from minidock.kernel.descriptors import from_thread
    from minidock.kernel.namespaces import CLONE_NEWNS

    def make() -> list[int]:
        mount.mount("", "/", "", mount.MS_REC | mount.MS_PRIVATE)
        return [mount.open_tree(mounter())]

    (made,) = from_thread(make, flags=CLONE_NEWNS)
    return made
