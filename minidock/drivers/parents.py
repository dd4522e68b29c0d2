"""Where an entry of a layer goes: its parent directory in the tree that is being unpacked.

A path is followed as a process in the finished container would follow it: symbolic links stay inside the root, also
those of the layers beneath. A parent that the tar does not hold is made as it is beneath.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from minidock.drivers import trees
from minidock.drivers.beneath import Attributes, Beneath, join, no_directory
from minidock.kernel.resolve import open_beneath

if TYPE_CHECKING:
    from collections.abc import Callable

_PATH_DIR = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED = 8


class Parents:
    """Finds and makes parent directories below ``tree_fd``.

    ``beneath`` holds the layer's marks and reads the layers beneath; ``directories`` collects what each directory that
    was made is to be given.
    """

    __slots__ = ("_cache", "_default", "_tree_fd", "beneath", "directories")

    def __init__(self, tree_fd: int, below: Callable[[], int] | None, default: Attributes) -> None:
        self._tree_fd = tree_fd
        self._default = default
        self._cache: dict[str, int] = {}
        self.beneath = Beneath(below)
        self.directories: dict[str, Attributes] = {}

    def close(self) -> None:
        while self._cache:
            os.close(self._cache.popitem()[1])

    def enter(self, path: str) -> tuple[int, str]:
        """The directory ``path`` as a descriptor that stays valid until several others were entered, and its path
        without symbolic links. Raises ArchiveError when it leads through something that is no directory, OSError."""
        fd = self._cache.pop(path, -1)
        if fd < 0:
            try:
                fd = open_beneath(self._tree_fd, path or ".", _PATH_DIR, symlinks=False)
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                    raise
                fd, path = self._walk(path)
            # Kept without the links that led there: where those lead may change with every entry.
            if path in self._cache:
                os.close(fd)
                fd = self._cache.pop(path)
            elif len(self._cache) >= _CACHED:
                os.close(self._cache.pop(next(iter(self._cache))))
        # The last one used is the last to go.
        self._cache[path] = fd
        return fd, path

    def replaced(self, path: str) -> None:
        """Something at ``path`` was removed: what was in it is no longer entered that way."""
        for entered, fd in list(self._cache.items()):
            if entered == path or entered.startswith(f"{path}/"):
                del self._cache[entered]
                os.close(fd)

    def make(self, name: str, dir_fd: int, path: str, attributes: Attributes) -> None:
        """Make a directory where there is nothing. Raises OSError."""
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        self.directories[path] = attributes
        self.beneath.made_directory(path)

    def _walk(self, path: str) -> tuple[int, str]:
        """Component by component, with symbolic links read here and missing directories made."""
        pending = path.split("/")[::-1]
        here: list[str] = []
        way = self.beneath.way(path)
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
                    pending += way.follow(target)
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
            raise no_directory(path)
        return None

    def _fill(self, fd: int, directory: str, name: str, path: str) -> str | None:
        """Take a component that the tree lacks from beneath, or make a directory."""
        found = self.beneath.component(directory, name, path, self._default)
        if isinstance(found, str):
            return found
        self.make(name, fd, join(directory, name), found)
        return None
