"""Writing a selection into a root file system: the second half of COPY.

Everything goes through directory descriptors of the merged root: a link of the image is followed where the destination
names it, inside the root, and never in what is copied below. Files of ten thousand entries are the common case, so the
loop over them does no more system calls than a copy needs.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.selection import BLOCK, SMALL, Entry, Group, changed, join, open_unchanged, read_xattrs
from minidock.build.tree import DIRECTORY_FLAGS, open_real, real_path
from minidock.errors import MinidockError
from minidock.kernel.files import copy_range, set_xattr
from minidock.kernel.resolve import mkdirs_in_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.build.selection import Selection
    from minidock.build.tree import SourceTree
    from minidock.dockerfile.modes import SymbolicMode

_SECOND = 10**9
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Look(NamedTuple):
    """What --chown and --chmod ask for: None where the source's own stays. Times later than ``newest``, in seconds, are
    cut to it; None keeps them."""

    owner: tuple[int, int] | None = None
    mode: int | SymbolicMode | None = None
    newest: int | None = None

    def mode_of(self, status: os.stat_result) -> int:
        """The mode, without its type, that a file with ``status`` gets."""
        return self.mode_for(stat.S_IMODE(status.st_mode), directory=stat.S_ISDIR(status.st_mode))

    def mode_for(self, mode: int, *, directory: bool = False) -> int:
        """The mode of what would have ``mode`` otherwise."""
        if self.mode is None:
            return mode
        return self.mode if isinstance(self.mode, int) else self.mode.of(mode, directory=directory)

    def owner_of(self, status: os.stat_result, tree: SourceTree) -> tuple[int, int]:
        """The owner that a file of ``tree`` with ``status`` gets."""
        if self.owner is not None:
            return self.owner
        return (status.st_uid, status.st_gid) if tree.keep_owner else (0, 0)

    def seconds(self, status: os.stat_result) -> int:
        """The time that a copy gets: in whole seconds, since a layer has no others, and cutting them later costs a call
        for each."""
        seconds = status.st_mtime_ns // _SECOND
        return seconds if self.newest is None else min(seconds, self.newest)


class Target(NamedTuple):
    """Where a selection goes: a directory that exists now (open, to be closed by the caller), and the name that a
    single file gets there (empty for a directory's contents)."""

    fd: int
    name: str


def is_directory_name(destination: str) -> bool:
    """Whether the text of a destination can only mean a directory."""
    return destination.endswith(("/", "/.", "/..")) or destination in ("", ".", "..")


def open_target(root_fd: int, destination: str, name: str, look: Look) -> Target:
    """Open where something goes: for a directory's contents (``name`` is empty) the directory itself, for a file that
    is called ``name`` its new parent.

    ``destination`` is absolute; missing directories are made, 0755 and root's unless ``look`` says otherwise. Raises
    MinidockError where a directory would replace a file or the reverse.
    """
    path = destination_path(root_fd, destination)
    existing = _kind(root_fd, path)
    if not name or is_directory_name(destination) or existing == stat.S_IFDIR:
        if existing not in (0, stat.S_IFDIR):
            what = "a file into a directory" if name else "a directory"
            raise MinidockError(f"cannot copy {what} to {destination}: it exists and is not a directory")
        return Target(make_directories(root_fd, path, look), name)
    parent, name = os.path.split(path)
    return Target(make_directories(root_fd, parent, look), name)


def destination_path(root_fd: int, destination: str) -> str:
    """The real path of a destination, relative to the root; what is missing of it stays as written."""
    try:
        return real_path(root_fd, destination, missing_ok=True)
    except NotADirectoryError as error:
        raise MinidockError(f"cannot copy to {destination}: a file is in the way, /{error.filename}") from None


def make_directories(root_fd: int, path: str, look: Look) -> int:
    """Make ``path`` (relative, real) and what is missing above it; return a descriptor of it, opened for reading."""
    uid, gid = look.owner or (0, 0)
    mode = look.mode_for(0o755, directory=True)
    try:
        return mkdirs_in_root(root_fd, path or ".", mode=mode, uid=uid, gid=gid, flags=DIRECTORY_FLAGS)
    except NotADirectoryError:
        raise MinidockError(f"cannot make the directory /{path}: a file is in the way") from None


def _kind(root_fd: int, path: str) -> int:
    try:
        fd = open_real(root_fd, path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        return stat.S_IFMT(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


class Writer:
    """Copies one selection into one target directory."""

    __slots__ = ("_links", "_look", "_made", "_selection", "_target", "_umask")

    def __init__(self, selection: Selection, target: Target, look: Look) -> None:
        self._selection = selection
        self._target = target
        self._look = look
        self._umask = _umask()
        self._links: dict[tuple[int, int], str] = {}
        self._made: list[tuple[str, Entry]] = []

    def write(self) -> None:
        """Copy everything. Raises OSError, or MinidockError for conflicts of kind and for files that change."""
        for group in self._selection.groups:
            source = self._selection.open_group(group)
            try:
                target = open_real(self._target.fd, group.path, DIRECTORY_FLAGS)
                try:
                    self._group(group, source, target)
                finally:
                    os.close(target)
            finally:
                os.close(source)
        for path, entry in reversed(self._made):
            fd = open_real(self._target.fd, path, DIRECTORY_FLAGS)
            try:
                self._finish(fd, entry, path)
            finally:
                os.close(fd)

    def _group(self, group: Group, source: int, target: int) -> None:
        # Where a new file is root's and keeps its mode anyway, chown and chmod are saved.
        plain = os.geteuid() == 0 and not os.fstat(target).st_mode & stat.S_ISGID and self._look.owner in (None, (0, 0))
        for entry in group.entries:
            path = join(group.path, entry.name)
            name = self._target.name or entry.name
            kind = stat.S_IFMT(entry.status.st_mode)
            if kind == stat.S_IFREG:
                if entry.status.st_nlink == 1 or not self._hard_link(entry, path, name, target):
                    self._file(entry, path, source, target, plain=plain)
            elif kind == stat.S_IFDIR:
                self._directory(entry, path, target)
            else:
                self._special(entry, path, name, target)

    def _file(self, entry: Entry, path: str, source: int, target: int, *, plain: bool) -> None:
        status, name = entry.status, self._target.name or entry.name
        mode = self._mode(status)
        data = self._selection.held.pop(path, None)
        fd = open_unchanged(entry, source) if data is None else -1
        try:
            try:
                out = os.open(name, _CREATE, mode & 0o777, dir_fd=target)
            except FileExistsError:
                if is_there(self._selection, entry, path, self._look, source=source, target=target, name=name):
                    return
                out = _create(name, target, mode & 0o777)
            try:
                if data is None:
                    _copy_content(fd, out, entry)
                else:
                    _write_all(out, data)
                if plain and not mode & self._umask and self._owner(status) == (0, 0) and path not in self._xattrs:
                    os.utime(out, ns=self._times(status))
                else:
                    self._finish(out, entry, path)
            finally:
                os.close(out)
        finally:
            if fd >= 0:
                os.close(fd)

    @property
    def _xattrs(self) -> dict[str, dict[str, bytes]]:
        return self._selection.xattrs

    def _mode(self, status: os.stat_result) -> int:
        return self._look.mode_of(status)

    def _times(self, status: os.stat_result) -> tuple[int, int]:
        seconds = self._look.seconds(status) * _SECOND
        return seconds, seconds

    def _owner(self, status: os.stat_result) -> tuple[int, int]:
        return self._look.owner_of(status, self._selection.tree)

    def _hard_link(self, entry: Entry, path: str, name: str, target: int) -> bool:
        first = self._links.setdefault((entry.status.st_dev, entry.status.st_ino), path)
        if first == path:
            return False
        directory, _, first_name = first.rpartition("/")
        fd = open_real(self._target.fd, directory, DIRECTORY_FLAGS)
        try:
            _replacing(name, target, lambda: os.link(first_name, name, src_dir_fd=fd, dst_dir_fd=target))
        finally:
            os.close(fd)
        return True

    def _directory(self, entry: Entry, path: str, target: int) -> None:
        try:
            os.mkdir(entry.name, 0o700, dir_fd=target)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(entry.name, dir_fd=target, follow_symlinks=False).st_mode):
                raise MinidockError(
                    f"cannot copy the directory {path!r}: what exists there is not a directory",
                    hint="a link to a directory counts as a file: name the directory it leads to as destination",
                ) from None
        self._made.append((path, entry))

    def _special(self, entry: Entry, path: str, name: str, target: int) -> None:
        status = entry.status
        if entry.link:
            try:
                os.symlink(entry.link, name, dir_fd=target)
            except FileExistsError:
                selection, look = self._selection, self._look
                if path not in self._xattrs and is_link_there(selection, entry, look, target=target, name=name):
                    return
                _replacing(name, target, lambda: os.symlink(entry.link, name, dir_fd=target))
        else:
            mode = stat.S_IFMT(status.st_mode) | 0o600
            _replacing(name, target, lambda: os.mknod(name, mode, status.st_rdev, dir_fd=target))
        uid, gid = self._owner(status)
        os.chown(name, uid, gid, dir_fd=target, follow_symlinks=False)
        if not entry.link:
            # The node was made here a moment ago, so that the path is what it seems; opening it could block.
            os.chmod(name, self._mode(status), dir_fd=target)
        for key, value in self._xattrs.get(path, {}).items():
            set_xattr(f"/proc/self/fd/{target}/{name}", key, value)
        os.utime(name, ns=self._times(status), dir_fd=target, follow_symlinks=False)

    def _finish(self, fd: int, entry: Entry, path: str) -> None:
        """Owner, mode, attributes and time of what is new, in the one order in which none undoes another; a directory
        that was there takes them, too."""
        status = entry.status
        os.fchown(fd, *self._owner(status))
        os.fchmod(fd, self._mode(status))
        for key, value in self._xattrs.get(path, {}).items():
            set_xattr(fd, key, value)
        os.utime(fd, ns=self._times(status))


def looks_alike(selection: Selection, entry: Entry, look: Look, there: os.stat_result) -> bool:
    """Whether what exists has the type, mode, owner, whole-second time and, for a file, size of what a copy makes."""
    wanted = entry.status
    kind = stat.S_IFMT(wanted.st_mode)
    mode = kind | (0o777 if kind == stat.S_IFLNK else look.mode_of(wanted))
    owner = look.owner_of(wanted, selection.tree)
    found = (there.st_mode, there.st_uid, there.st_gid, there.st_mtime_ns // _SECOND)
    if found != (mode, *owner, look.seconds(wanted)):
        return False
    return kind != stat.S_IFREG or there.st_size == wanted.st_size


def is_there(selection: Selection, entry: Entry, path: str, look: Look, *, source: int, target: int, name: str) -> bool:
    """Whether the regular file ``entry``, ``path`` in its selection, exists as ``name`` in the directory ``target``
    just as it would be written, to the second: writing it anew would only change its directory's time, and make a layer
    of that. ``source`` is the directory that it is in."""
    there = os.stat(name, dir_fd=target, follow_symlinks=False)
    if entry.status.st_nlink != 1 or there.st_nlink != 1 or not looks_alike(selection, entry, look, there):
        return False
    new = open_unchanged(entry, source)
    try:
        old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
        try:
            return read_xattrs(old) == selection.xattrs.get(path, {}) and _same_content(new, old)
        finally:
            os.close(old)
    finally:
        os.close(new)


def is_link_there(selection: Selection, entry: Entry, look: Look, *, target: int, name: str) -> bool:
    """As ``is_there`` for a symbolic link, which has no extended attributes, where there is something of its name."""
    there = os.stat(name, dir_fd=target, follow_symlinks=False)
    if not looks_alike(selection, entry, look, there) or os.readlink(name, dir_fd=target) != entry.link:
        return False
    return not read_xattrs(f"/proc/self/fd/{target}/{name}")


def _copy_content(fd: int, out: int, entry: Entry) -> None:
    status = entry.status
    if status.st_size <= SMALL:
        data = os.read(fd, status.st_size + 1)
        if len(data) != status.st_size:
            raise changed(entry)
        _write_all(out, data)
        return
    sparse = status.st_blocks * 512 < status.st_size
    if copy_range(fd, out, status.st_size, sparse=sparse) != status.st_size:
        raise changed(entry)


def _same_content(one: int, other: int) -> bool:
    while True:
        block = os.read(one, BLOCK)
        if block != os.read(other, BLOCK):
            return False
        if not block:
            return True


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _create(name: str, directory: int, mode: int) -> int:
    try:
        return os.open(name, _CREATE, mode, dir_fd=directory)
    except FileExistsError:
        _make_room(name, directory)
        return os.open(name, _CREATE, mode, dir_fd=directory)


def _replacing(name: str, directory: int, make: Callable[[], None]) -> None:
    try:
        make()
    except FileExistsError:
        _make_room(name, directory)
        make()


def _make_room(name: str, directory: int) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        raise MinidockError(f"cannot copy the file {name!r}: a directory exists there") from None
    os.unlink(name, dir_fd=directory)


def write_file(directory: int, name: str, data: bytes, look: Look) -> None:
    """Write a heredoc's file: 0644 and root's unless ``look`` says otherwise."""
    fd = _create(name, directory, 0o600)
    try:
        _write_all(fd, data)
        os.fchown(fd, *(look.owner or (0, 0)))
        os.fchmod(fd, look.mode_for(0o644))
    finally:
        os.close(fd)


def _umask() -> int:
    """The process's umask and the special bits: a mode with one of these in it needs chmod. Read, never set, since
    setting it would change it for other threads (proc(5), Linux 4.7)."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line[6:], 8) | 0o7000
    return 0o7777
