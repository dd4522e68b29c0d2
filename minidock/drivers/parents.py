"""Where an entry of a layer goes: its parent directory in the tree that is being unpacked.

A path is followed as a process in the finished container would follow it: symbolic links stay inside the root, also
those of the layers beneath. A parent that the tar does not hold is made as it is beneath.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from minidock.drivers import trees, xattrs
from minidock.drivers.tar_format import shorten
from minidock.drivers.xattrs import NO_XATTRS
from minidock.errors import ArchiveError
from minidock.kernel.resolve import open_beneath

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PATH_DIR = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40
_CACHED = 8


class Attributes(NamedTuple):
    """What a directory is given when all of its children are there; ``mtime`` None leaves the time as it comes."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int | None = 0
    xattrs: Mapping[str, bytes] = NO_XATTRS


class Parents:
    """Finds and makes parent directories below ``tree_fd``.

    ``below`` gives the merged view of the layers beneath when it is first needed, or is None when there are none.
    ``directories`` collects what each directory that was made is to be given; ``deleted`` and ``opaque`` are the
    layer's marks, by path. ``self_contained`` becomes false once the tree depends on what is beneath.
    """

    __slots__ = ("_below", "_cache", "_default", "_tree_fd", "deleted", "directories", "opaque", "self_contained")

    def __init__(self, tree_fd: int, below: Callable[[], int] | None, default: Attributes) -> None:
        self._tree_fd = tree_fd
        self._below = below
        self._default = default
        self._cache: dict[str, tuple[int, str]] = {}
        self.directories: dict[str, Attributes] = {}
        self.deleted: set[str] = set()
        self.opaque: set[str] = set()
        self.self_contained = True

    def close(self) -> None:
        while self._cache:
            os.close(self._cache.popitem()[1][0])

    def enter(self, path: str) -> tuple[int, str]:
        """The directory ``path`` as a descriptor that stays valid until several others were entered, and its path
        without symbolic links. Raises ArchiveError when it leads through something that is no directory, OSError."""
        known = self._cache.get(path)
        if known is not None:
            return known
        try:
            found = open_beneath(self._tree_fd, path or ".", _PATH_DIR, symlinks=False), path
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
            found = self._walk(path)
        if len(self._cache) >= _CACHED:
            oldest = next(iter(self._cache))
            os.close(self._cache.pop(oldest)[0])
        self._cache[path] = found
        return found

    def replaced(self, path: str) -> None:
        """Something at ``path`` was removed: forget every way that may have led through it."""
        for literal, (fd, canonical) in list(self._cache.items()):
            if literal != canonical or canonical == path or canonical.startswith(f"{path}/"):
                del self._cache[literal]
                os.close(fd)

    def status_below(self, directory: str, name: str) -> tuple[os.stat_result, int] | None:
        """What the layers beneath show at ``name`` in ``directory``, and a descriptor of that directory there, which
        the caller closes; None where they show nothing."""
        return None if join(directory, name) in self.deleted else self._look_below(directory, name)

    def settle_deletions(self) -> None:
        """Keep only deletions of something: overlayfs shows a mark without a victim as a name that leads nowhere.

        What is kept depends on what is beneath, so a layer with deletions is never self-contained.
        """
        for path in list(self.deleted):
            self.self_contained = False
            directory, _, name = path.rpartition("/")
            below = self._look_below(directory, name)
            if below is None:
                self.deleted.discard(path)
            else:
                os.close(below[1])

    def _look_below(self, directory: str, name: str) -> tuple[os.stat_result, int] | None:
        if self._below is None or self._is_hidden(directory):
            return None
        fd = trees.try_open_directory(self._below(), directory)
        if fd < 0:
            return None
        status = trees.status_of(name, fd)
        if status is None:
            os.close(fd)
            return None
        return status, fd

    def make(self, name: str, dir_fd: int, path: str, attributes: Attributes) -> None:
        """Make a directory where there is nothing; where the layers beneath lost that name to a deletion, they stay
        hidden. Raises OSError."""
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        self.directories[path] = attributes
        if path in self.deleted:
            self.deleted.discard(path)
            self.opaque.add(path)

    def _is_hidden(self, directory: str) -> bool:
        if not self.opaque:
            return False
        while directory:
            if directory in self.opaque:
                return True
            directory = directory.rpartition("/")[0]
        return "" in self.opaque

    def _walk(self, path: str) -> tuple[int, str]:
        """Component by component, with symbolic links read here and missing directories made."""
        pending = path.split("/")[::-1]
        here: list[str] = []
        links = 0
        fd = trees.open_directory(self._tree_fd, "")
        try:
            while pending:
                name = pending.pop()
                if name in {"", "."}:
                    continue
                if name == "..":
                    del here[-1:]
                    target = None
                else:
                    target = self._step(fd, here, name, path)
                    if target is None:
                        here.append(name)
                if target is not None:
                    links += 1
                    if links > _MAX_LINKS:
                        raise ArchiveError(f"the path {shorten(path)} in the tar stream has too many symbolic links")
                    pending += target.split("/")[::-1]
                    if not target.startswith("/"):
                        continue
                    here.clear()
                os.close(fd)
                fd = -1
                fd = open_beneath(self._tree_fd, "/".join(here) or ".", _PATH_DIR, symlinks=False)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        return fd, "/".join(here)

    def _step(self, fd: int, here: list[str], name: str, path: str) -> str | None:
        """Go over one component: None when it is a directory now, the target when it is a symbolic link."""
        status = trees.status_of(name, fd)
        if status is None:
            return self._fill(fd, "/".join(here), name, path)
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=fd)
        if not stat.S_ISDIR(status.st_mode):
            raise _no_directory(path)
        return None

    def _fill(self, fd: int, directory: str, name: str, path: str) -> str | None:
        """Take a component that the tree lacks from beneath, or make a directory."""
        self.self_contained = False
        attributes = self._default
        below = self.status_below(directory, name)
        if below is not None:
            status, below_fd = below
            try:
                if stat.S_ISLNK(status.st_mode):
                    return os.readlink(name, dir_fd=below_fd)
                if not stat.S_ISDIR(status.st_mode):
                    raise _no_directory(path)
                attributes = attributes_of(below_fd, name)
            finally:
                os.close(below_fd)
        self.make(name, fd, join(directory, name), attributes)
        return None


def attributes_of(dir_fd: int, name: str) -> Attributes:
    """What the directory ``name`` has. Raises OSError."""
    fd = os.open(name, trees.OPEN_DIR, dir_fd=dir_fd)
    try:
        status = os.fstat(fd)
        seconds = status.st_mtime_ns // 1_000_000_000
        return Attributes(status.st_mode & 0o7777, status.st_uid, status.st_gid, seconds, xattrs.read(fd))
    finally:
        os.close(fd)


def join(directory: str, name: str) -> str:
    """The path of ``name`` in ``directory``, "" being the root. For keys and messages, never to be opened as it is."""
    return f"{directory}/{name}" if directory else name


def _no_directory(path: str) -> ArchiveError:
    return ArchiveError(f"the path {shorten(path)} in the tar stream leads through something that is no directory")
