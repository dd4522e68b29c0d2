"""What a layer does to the layers beneath it while its tar is read: the marks it makes there, and what it takes over.

The layers beneath are seen as one merged tree, which only what needs it opens, and read by descriptor; no symbolic
link in it is followed by the kernel.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from minidock.drivers import trees, xattrs
from minidock.drivers.tar_format import shorten
from minidock.drivers.xattrs import NO_XATTRS
from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_LINKS = 40
# Components that links may add to one path for nothing, and to all of a layer's paths beyond that.
_SHORT_WAY = 64
_DETOURS = 20_000


class Attributes(NamedTuple):
    """What a directory is given when all of its children are there; ``mtime`` None leaves the time as it comes."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int | None = 0
    xattrs: Mapping[str, bytes] = NO_XATTRS


class Beneath:
    """The layers beneath one that is being read, and its marks.

    ``below`` gives their merged view, a directory that stays the caller's, when it is first needed; None when there are
    none. ``deleted`` and ``opaque`` are paths without symbolic links, "" the root. ``self_contained`` becomes false
    once the layer's tree depends on what is beneath.
    """

    __slots__ = ("_below", "_detours", "deleted", "opaque", "self_contained")

    def __init__(self, below: Callable[[], int] | None) -> None:
        self._below = below
        self._detours = 0
        self.deleted: set[str] = set()
        self.opaque: set[str] = set()
        self.self_contained = True

    def root(self) -> Attributes:
        """What a root directory that the layer lacks is given. Raises OSError."""
        self.self_contained = False
        return attributes_of(self._below(), ".") if self._below else Attributes()

    def status(self, directory: str, name: str) -> tuple[os.stat_result, int] | None:
        """What is to be seen beneath at ``name`` in ``directory``, and a descriptor of that directory there, which the
        caller closes; None where there is nothing, or nothing any more. Raises OSError."""
        return None if join(directory, name) in self.deleted else self._look(directory, name)

    def component(self, directory: str, name: str, path: str, default: Attributes) -> Attributes | str:
        """What stands in for ``name``, on the way of ``path``, which the layer lacks in ``directory``: a directory with
        these attributes, ``default`` where there is nothing beneath, or a symbolic link's target.

        Raises ArchiveError when it is neither, OSError.
        """
        self.self_contained = False
        below = self.status(directory, name)
        if below is None:
            return default
        status, fd = below
        try:
            if stat.S_ISLNK(status.st_mode):
                return os.readlink(name, dir_fd=fd)
            if not stat.S_ISDIR(status.st_mode):
                raise no_directory(path)
            return attributes_of(fd, name)
        finally:
            os.close(fd)

    def way(self, path: str) -> Way:
        """What is to be told of each symbolic link on the way of ``path``."""
        return Way(self, path)

    def detour(self, components: int, path: str) -> None:
        """A path was led further by so many components than an honest one ever is. Raises ArchiveError when the
        layer has too many of those: each of its entries could cost what the longest chain of links does."""
        self._detours += components
        if self._detours > _DETOURS:
            raise ArchiveError(f"the path {shorten(path)} in the tar stream leads through symbolic links for too long")

    def made_directory(self, path: str) -> None:
        """A new directory at ``path``: where the layers beneath lost that name to a deletion, they stay hidden."""
        if path in self.deleted:
            self.deleted.discard(path)
            self.opaque.add(path)

    def settle(self, mode_of: Callable[[str], int | None]) -> None:
        """The marks in the form that overlayfs takes: the root hides what is beneath by name, as overlayfs never looks
        at a root's mark; a deletion that has no victim goes, as it would be shown as a name that leads nowhere.

        ``mode_of`` gives st_mode of a name in the layer's root. What is kept depends on what is beneath, so a layer
        with deletions is never self-contained. Raises OSError.
        """
        if "" in self.opaque:
            self.self_contained = False
            if self._below is not None:
                self.opaque.discard("")
                self._hide_names(mode_of)
        for path in list(self.deleted):
            self.self_contained = False
            directory, _, name = path.rpartition("/")
            below = self._look(directory, name)
            if below is None:
                self.deleted.discard(path)
            else:
                os.close(below[1])

    def _hide_names(self, mode_of: Callable[[str], int | None]) -> None:
        fd = trees.open_directory(self._below(), "") if self._below else -1
        try:
            names = os.listdir(fd)
        finally:
            os.close(fd)
        for name in names:
            mode = mode_of(name)
            if mode is None:
                self.deleted.add(name)
            elif stat.S_ISDIR(mode):
                self.opaque.add(name)

    def _look(self, directory: str, name: str) -> tuple[os.stat_result, int] | None:
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

    def _is_hidden(self, directory: str) -> bool:
        if not self.opaque:
            return False
        while directory:
            if directory in self.opaque:
                return True
            directory = directory.rpartition("/")[0]
        return "" in self.opaque


class Way:
    """The symbolic links of one path."""

    __slots__ = ("_beneath", "_components", "_links", "_path")

    def __init__(self, beneath: Beneath, path: str) -> None:
        self._beneath = beneath
        self._path = path
        self._links = 0
        self._components = 0

    def follow(self, target: str) -> list[str]:
        """The components of a link's target, last first. Raises ArchiveError when the path has too many links, or the
        layer too many long ones."""
        components = target.split("/")[::-1]
        self._links += 1
        if self._links > _MAX_LINKS:
            raise ArchiveError(f"the path {shorten(self._path)} in the tar stream has too many symbolic links")
        self._components += len(components)
        if self._components > _SHORT_WAY:
            self._beneath.detour(len(components), self._path)
        return components


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


def no_directory(path: str) -> ArchiveError:
    """The error of a path that leads through a file."""
    return ArchiveError(f"the path {shorten(path)} in the tar stream leads through something that is no directory")
