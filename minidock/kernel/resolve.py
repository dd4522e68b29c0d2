"""Paths inside a root that an adversary may own: openat2(2), and the same done component by component.

No path of a container, layer or context is ever joined and opened: it is resolved from a directory descriptor, and no
symlink, ``..`` or race leads out. On a kernel without openat2 (before Linux 5.6, or under a filter that hides it) every
component is opened by itself without following, symlinks are read and expanded here, and ``..`` goes back to a
descriptor that was passed on the way, so that a directory that is moved meanwhile can't be climbed out of.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable

from minidock.kernel.syscall import SYS_OPENAT2, cstring, syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_PROBE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_SYMLINKS = 40
_RETRIES = 32


def open_in_root(
    root_fd: int, path: str, flags: int = os.O_PATH, mode: int = 0, *, follow: bool = True, openat2: bool = True
) -> int:
    """Open ``path`` as a process would whose root directory is ``root_fd``; returns a CLOEXEC descriptor.

    Absolute paths and symlinks start at the root, and ``..`` at the root stays there. ``follow`` is about a final
    symlink only. Links of /proc that lead elsewhere without a path (magic links) are refused with ELOOP. ``openat2``
    false forces the walk by components. Raises OSError with errno and the path.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    return _open(root_fd, path, flags if follow else flags | os.O_NOFOLLOW, mode, resolve=resolve, openat2=openat2)


def open_beneath(
    root_fd: int,
    path: str,
    flags: int = os.O_PATH,
    mode: int = 0,
    *,
    follow: bool = True,
    symlinks: bool = True,
    openat2: bool = True,
) -> int:
    """Open a relative ``path`` below ``root_fd``: whatever would leave it, an absolute symlink too, is EXDEV.

    ``symlinks`` false refuses every symlink in it with ELOOP. The rest is as in ``open_in_root``.
    """
    resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | (0 if symlinks else RESOLVE_NO_SYMLINKS)
    return _open(root_fd, path, flags if follow else flags | os.O_NOFOLLOW, mode, resolve=resolve, openat2=openat2)


def mkdirs_in_root(
    root_fd: int,
    path: str,
    *,
    mode: int = 0o755,
    uid: int = 0,
    gid: int = 0,
    flags: int = _DIRECTORY,
    openat2: bool = True,
) -> int:
    """The directory ``path`` inside the root as a descriptor, made with its missing parents.

    Symlinks are followed inside the root; where one leads to nothing, the directory is made there. Only what is made
    gets the exact ``mode``, whatever the umask, and the owner. Raises NotADirectoryError when a component is a file.
    """
    try:
        return open_in_root(root_fd, path, flags | os.O_DIRECTORY, openat2=openat2)
    except FileNotFoundError:
        pass

    def make(parent_fd: int, name: str) -> None:
        _make_directory(parent_fd, name, mode, uid, gid)

    walk = _Walk(root_fd, path, RESOLVE_IN_ROOT, make)
    with walk:
        return walk.open(flags | os.O_DIRECTORY, 0)


def split_parent(root_fd: int, path: str, *, openat2: bool = True) -> tuple[int, str]:
    """The directory that holds the last component of ``path`` as an O_PATH descriptor, and that component's name.

    The last component itself need not exist and is not followed. Raises OSError: EINVAL when there is no name to
    speak of ("/", ".", "..").
    """
    stripped = path.rstrip("/")
    parent, _, name = stripped.rpartition("/")
    if name in ("", ".", ".."):
        raise OSError(errno.EINVAL, "the path has no last component", path)
    if path.startswith("/"):
        parent = "/" + parent
    return open_in_root(root_fd, parent or ".", _DIRECTORY, openat2=openat2), name


def read_link(fd: int) -> str:
    """The target of the symlink that an O_PATH descriptor names. Raises OSError (ENOENT when it is no symlink)."""
    return os.readlink("", dir_fd=fd)


def _open(root_fd: int, path: str, flags: int, mode: int, *, resolve: int, openat2: bool) -> int:
    if openat2:
        try:
            return _openat2(root_fd, path, flags, mode, resolve)
        except OSError as error:
            # EAGAIN: somebody renames or mounts without pause while ".." is resolved, and the kernel can't be sure that
            # it stays inside. The walk does not depend on that.
            if error.errno not in (errno.ENOSYS, errno.EAGAIN):
                raise
    with _Walk(root_fd, path, resolve) as walk:
        return walk.open(flags, mode)


def _openat2(root_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    if flags & os.O_PATH:
        flags &= _DIRECTORY | os.O_NOFOLLOW
    encoded = cstring(path)
    mode = mode if flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY) else 0
    # struct open_how: flags, mode, resolve, each u64.
    how = struct.pack("3Q", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_RETRIES):
        try:
            return syscall(SYS_OPENAT2, root_fd, encoded, how, len(how), path=path)
        except BlockingIOError:
            continue
    return syscall(SYS_OPENAT2, root_fd, encoded, how, len(how), path=path)


def _make_directory(parent_fd: int, name: str, mode: int, uid: int, gid: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    except FileExistsError:
        return
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        if (uid, gid) != (-1, -1):
            os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


class _Walk:
    """One resolution by components. ``make`` is called for a directory that is missing on the way."""

    __slots__ = ("_beneath", "_directory", "_fds", "_links", "_make", "_no_links", "_path", "_pending", "_root_fd")

    def __init__(self, root_fd: int, path: str, resolve: int, make: Callable[[int, str], None] | None = None) -> None:
        self._root_fd = root_fd
        self._path = path
        self._beneath = bool(resolve & RESOLVE_BENEATH)
        self._no_links = bool(resolve & RESOLVE_NO_SYMLINKS)
        self._make = make
        self._links = 0
        # The directories passed on the way down from the root, which is not among them.
        self._fds: list[int] = []
        # The components still to go, the next one last.
        self._pending: list[str] = []
        # Whether the end has to be a directory: it was written with a slash behind it.
        self._directory = False

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, *_: object) -> None:
        self._to_root()

    def open(self, flags: int, mode: int) -> int:
        """Resolve the path and open its end."""
        if not self._path:
            raise self._error(errno.ENOENT)
        if flags & os.O_PATH:
            flags &= _DIRECTORY | os.O_NOFOLLOW
        self._push(self._path)
        while self._pending:
            name = self._pending.pop()
            if name == "..":
                self._climb()
                continue
            last = not self._pending
            fd = self._probe(name)
            if fd < 0:
                if not (last and flags & os.O_CREAT):
                    raise self._error(errno.ENOENT)
                if self._directory:
                    raise self._error(errno.EISDIR)
                return self._open_name(name, flags | os.O_NOFOLLOW, mode)
            kind = stat.S_IFMT(os.fstat(fd).st_mode)
            if kind == stat.S_IFLNK and not (last and self._keeps_link(flags)):
                self._expand(fd)
            elif kind == stat.S_IFDIR:
                self._fds.append(fd)
            elif last and not self._directory:
                return self._open_last(fd, name, flags, mode)
            else:
                os.close(fd)
                raise self._error(errno.ENOTDIR)
        return self._open_directory(flags, mode)

    def _here(self) -> int:
        return self._fds[-1] if self._fds else self._root_fd

    def _error(self, code: int) -> OSError:
        return OSError(code, os.strerror(code), self._path or None)

    def _to_root(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _push(self, text: str) -> None:
        """Put the components of a path or of a symlink's target before those still to go."""
        if text.startswith("/"):
            if self._beneath:
                raise self._error(errno.EXDEV)
            self._to_root()
        if not self._pending:
            self._directory = self._directory or text.rpartition("/")[2] in ("", ".", "..")
        self._pending.extend(name for name in reversed(text.split("/")) if name not in ("", "."))

    def _climb(self) -> None:
        if self._fds:
            os.close(self._fds.pop())
        elif self._beneath:
            raise self._error(errno.EXDEV)

    def _keeps_link(self, flags: int) -> bool:
        return not self._directory and bool(flags & os.O_NOFOLLOW or (flags & os.O_CREAT and flags & os.O_EXCL))

    def _probe(self, name: str) -> int:
        """An O_PATH descriptor of a component; -1 when it is missing and is not to be made."""
        try:
            return self._open_name(name, _PROBE)
        except FileNotFoundError:
            if self._make is None:
                return -1
        self._make(self._here(), name)
        return self._open_name(name, _PROBE)

    def _expand(self, fd: int) -> None:
        """Put a symlink's target in its place."""
        try:
            self._links += 1
            if self._no_links or self._links > _MAX_SYMLINKS:
                raise self._error(errno.ELOOP)
            target = read_link(fd)
        finally:
            os.close(fd)
        self._push(target)

    def _open_name(self, name: str, flags: int, mode: int = 0) -> int:
        try:
            return os.open(name, flags | os.O_CLOEXEC, mode, dir_fd=self._here())
        except OSError as error:
            raise self._error(error.errno or errno.EIO) from None

    def _open_last(self, fd: int, name: str, flags: int, mode: int) -> int:
        """Open what the probe found to be no directory: a file, or a symlink that is not to be followed."""
        if flags & os.O_PATH and not flags & os.O_DIRECTORY:
            return fd
        os.close(fd)
        return self._open_name(name, flags | os.O_NOFOLLOW, mode)

    def _open_directory(self, flags: int, mode: int) -> int:
        if flags & os.O_CREAT:
            raise self._error(errno.EEXIST if flags & os.O_EXCL else errno.EISDIR)
        return self._open_name(".", flags, mode)
