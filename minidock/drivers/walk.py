"""The walk over a writable layer: what of it a layer has to hold, in the order of its tar.

The walk compares with the merged view of the layers beneath and leaves out what is the same there,
with the exceptions: ancestors of what is kept; everything below an opaque or type-changed directory;
members of a hard-link group that keeps another member. It can leave the writable layer as unpacking its tar would make
it.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from minidock.drivers.compare import same_directory, same_entry
from minidock.drivers.whiteouts import is_opaque
from minidock.kernel.files import is_whiteout, whiteout
from minidock.kernel.resolve import open_beneath
from minidock.model.dating import SECOND, Dating

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_OPEN_LEVELS = 100


class Level:
    """A directory on the way: ``fd`` in the writable layer and ``below``, the directory it merges with, or -1.

    ``beneath`` is true when the layers below have something of that name, whatever it is; ``kept`` when the directory
    itself is in the layer; ``touched`` when the walk changed its content and its times must be given back. ``mtime``,
    in seconds, is what it has in the layer.
    """

    __slots__ = (
        "below",
        "beneath",
        "fd",
        "items",
        "kept",
        "merges",
        "mtime",
        "name",
        "opaque",
        "path",
        "same",
        "same_mtime",
        "status",
        "touched",
    )

    def __init__(self, name: str, path: str, fd: int, below: int, status: os.stat_result) -> None:
        self.name = name
        self.path = path
        self.fd = fd
        self.below = below
        self.status = status
        self.mtime = 0
        self.merges = self.beneath = below >= 0
        self.opaque = False
        self.same = False
        self.same_mtime = 0
        self.kept = False
        self.touched = False
        self.items: Iterator[tuple[str, os.stat_result | None]] = iter(())

    def close(self) -> None:
        for fd in (self.fd, self.below):
            if fd >= 0:
                os.close(fd)
        self.fd = self.below = -1


class Found(NamedTuple):
    """An entry that the layer holds. ``status`` is None for a deletion; for a directory ``level`` is the directory
    itself, else the one that holds the entry. ``beneath`` is true when there is something of that name below; ``mtime``
    is what it has in the layer, in seconds."""

    level: Level
    name: str
    path: str
    status: os.stat_result | None
    beneath: bool
    mtime: int = 0


class Walk:
    """Iterate to get what a layer holds. ``upper_fd`` and ``below_fd`` are directories that stay the caller's.

    ``below_fd`` -1 keeps everything. ``copied`` says that the writable layer is a whole copy of the view below (vfs),
    so that what is missing is deleted; else it is an overlay's upper directory. ``normalise`` leaves the writable layer
    as unpacking the layer's tar would make it: no sockets, the layer's times, and, in an upper directory, nothing that
    is left out. ``dating`` says which times those are; None keeps them but for fractions of seconds.
    """

    __slots__ = ("_below_fd", "_copied", "_dating", "_groups", "_normalise", "_upper_fd")

    def __init__(
        self, upper_fd: int, below_fd: int, *, copied: bool, normalise: bool, dating: Dating | None = None
    ) -> None:
        self._upper_fd = upper_fd
        self._below_fd = below_fd
        self._copied = copied
        self._normalise = normalise
        self._dating = dating or Dating()
        self._groups: set[tuple[int, int]] | None = None

    def __iter__(self) -> Iterator[Found]:
        """Raises OSError."""
        stack = [self._root()]
        try:
            if not stack[0].same:
                yield from self._keep(stack)
            while stack:
                level = self._reopened(stack[-1])
                for name, status in level.items:
                    path = f"{level.path}/{name}" if level.path else name
                    if status is not None and stat.S_ISDIR(status.st_mode):
                        child = self._enter(level, name, path, status)
                        stack.append(child)
                        _close_far(stack)
                        if not child.same:
                            yield from self._keep(stack)
                        break
                    if self._leaves_out(level, name, status):
                        continue
                    if not level.kept:
                        yield from self._keep(stack)
                    if status is None or self._is_deletion(status):
                        yield Found(level, name, path, None, True)
                        continue
                    mtime = self._dating.seconds(status.st_mtime_ns)
                    yield Found(level, name, path, status, self._hides(level, name), mtime)
                    self._give_time(level, name, status, mtime)
                else:
                    self._leave(stack)
        finally:
            for level in stack:
                level.close()

    def _root(self) -> Level:
        fd = os.open(".", _OPEN_DIR, dir_fd=self._upper_fd)
        below = os.open(".", _OPEN_DIR, dir_fd=self._below_fd) if self._below_fd >= 0 else -1
        level = Level("", "", fd, below, os.fstat(fd))
        self._compare(level)
        level.items = self._items(level)
        return level

    def _compare(self, level: Level) -> None:
        """Find out the time that a directory has in the layer, and whether it is the same one beneath."""
        there = os.fstat(level.below) if level.below >= 0 else None
        level.mtime = self._dating.seconds(level.status.st_mtime_ns, there and there.st_mtime_ns)
        level.same = there is not None and same_directory(level.fd, level.status, level.below, there, level.mtime)
        if there is not None and level.same:
            # What is beneath, where the layer cannot hold it, stays as it is there.
            level.same_mtime = there.st_mtime_ns // SECOND

    def _enter(self, parent: Level, name: str, path: str, status: os.stat_result) -> Level:
        fd = os.open(name, _OPEN_DIR, dir_fd=parent.fd)
        level = Level(name, path, fd, -1, status)
        try:
            opaque = not self._copied and is_opaque(fd)
            if parent.below >= 0:
                level.beneath = _exists(name, parent.below)
                below = _open_directory(name, parent.below) if level.beneath else -1
                level.opaque = opaque and below >= 0
                if level.opaque:
                    os.close(below)
                elif below >= 0:
                    level.below = below
                    level.merges = True
            else:
                level.opaque = opaque and self._below_fd < 0
            self._compare(level)
            level.items = self._items(level)
        except BaseException:
            level.close()
            raise
        return level

    def _leave(self, stack: list[Level]) -> None:
        level = stack.pop()
        try:
            if not self._normalise:
                return
            if stack and not level.kept and not self._copied:
                parent = self._reopened(stack[-1])
                os.rmdir(level.name, dir_fd=parent.fd)
                parent.touched = True
                return
            mtime = level.mtime if level.kept else level.same_mtime
            if level.touched or level.status.st_mtime_ns != mtime * SECOND:
                os.utime(level.fd, ns=(level.status.st_atime_ns, mtime * SECOND))
        finally:
            level.close()

    def _items(self, level: Level) -> Iterator[tuple[str, os.stat_result | None]]:
        items = _list(level.fd)
        if self._copied and level.below >= 0:
            there = {name for name, _ in items}
            items += [(name, None) for name in os.listdir(level.below) if name not in there]
        items.sort(key=_by_name)
        return iter(items)

    def _leaves_out(self, level: Level, name: str, status: os.stat_result | None) -> bool:
        """Whether an entry that is no directory is not in the layer; if so, and asked for, it leaves the tree, too."""
        if status is None:
            return False
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            out, stays = not self._hides(level, name), False
            if not out and self._normalise:
                self._remove(level, name)
                if not self._copied:
                    whiteout(level.fd, name)
        elif kind == stat.S_IFCHR and not self._copied and is_whiteout(status):
            out, stays = not (self._below_fd < 0 or self._hides(level, name)), False
        else:
            out, stays = self._is_same(level, name, status), self._copied
        if out and stays:
            if status.st_mtime_ns % SECOND or self._dating.newest is not None:
                below = os.stat(name, dir_fd=level.below, follow_symlinks=False)
                self._give_time(level, name, status, below.st_mtime_ns // SECOND)
        elif out:
            self._remove(level, name)
        return out

    def _is_deletion(self, status: os.stat_result) -> bool:
        return stat.S_ISSOCK(status.st_mode) or (not self._copied and is_whiteout(status))

    @staticmethod
    def _hides(level: Level, name: str) -> bool:
        """Whether there is something of that name beneath: a whiteout deletes it, and so does a socket."""
        return level.below >= 0 and _exists(name, level.below)

    def _is_same(self, level: Level, name: str, status: os.stat_result) -> bool:
        if level.below < 0:
            return False
        if status.st_nlink > 1:
            if self._groups is None:
                self._groups = self._kept_groups()
            return (status.st_dev, status.st_ino) not in self._groups
        return self._alike(level, name, status) is not None

    def _alike(self, level: Level, name: str, status: os.stat_result) -> os.stat_result | None:
        """The status of the entry beneath if it is the same one."""
        try:
            below = os.stat(name, dir_fd=level.below, follow_symlinks=False)
        except FileNotFoundError:
            return None
        mtime = self._dating.seconds(status.st_mtime_ns)
        return below if same_entry(level.fd, level.below, name, status, below, mtime=mtime) else None

    def _kept_groups(self) -> set[tuple[int, int]]:
        """The hard-link groups that are not, member for member, the same one group beneath."""
        kept: set[tuple[int, int]] = set()
        beneath: dict[tuple[int, int], tuple[int, int]] = {}
        stack = [self._root()]
        try:
            while stack:
                level = self._reopened(stack[-1])
                for name, status in level.items:
                    if status is None:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        path = f"{level.path}/{name}" if level.path else name
                        stack.append(self._enter(level, name, path, status))
                        _close_far(stack)
                        break
                    if status.st_nlink < 2 or is_whiteout(status):
                        continue
                    group = (status.st_dev, status.st_ino)
                    if group not in kept:
                        below = self._alike(level, name, status) if level.below >= 0 else None
                        identity = (below.st_dev, below.st_ino) if below else (-1, -1)
                        if not below or beneath.setdefault(group, identity) != identity:
                            kept.add(group)
                else:
                    stack.pop().close()
        finally:
            for level in stack:
                level.close()
        return kept

    def _remove(self, level: Level, name: str) -> None:
        if self._normalise:
            os.unlink(name, dir_fd=level.fd)
            level.touched = True

    def _give_time(self, level: Level, name: str, status: os.stat_result, mtime: int) -> None:
        if self._normalise and status.st_mtime_ns != mtime * SECOND:
            os.utime(name, ns=(status.st_atime_ns, mtime * SECOND), dir_fd=level.fd, follow_symlinks=False)

    def _keep(self, stack: list[Level]) -> Iterator[Found]:
        """The directories on the way that were not given out yet: each is an ancestor of something that is kept."""
        for depth, level in enumerate(stack):
            if not level.kept:
                level.kept = True
                self._reopened(level)
                yield Found(level, level.name, level.path, level.status, level.beneath, level.mtime)
                if depth < len(stack) - _MAX_OPEN_LEVELS:
                    level.close()

    def _reopened(self, level: Level) -> Level:
        if level.fd < 0:
            level.fd = open_beneath(self._upper_fd, level.path or ".", _OPEN_DIR, symlinks=False)
            if level.merges:
                level.below = open_beneath(self._below_fd, level.path or ".", _OPEN_DIR, symlinks=False)
        return level


def _close_far(stack: list[Level]) -> None:
    """Deep trees take a bounded number of descriptors: those far up are opened again when the walk is back there."""
    if len(stack) > _MAX_OPEN_LEVELS:
        stack[-1 - _MAX_OPEN_LEVELS].close()


def _list(fd: int) -> list[tuple[str, os.stat_result | None]]:
    items: list[tuple[str, os.stat_result | None]] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                items.append((entry.name, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                # A running container, whose changes are listed, may remove what it likes.
                continue
    return items


def _by_name(item: tuple[str, object]) -> bytes:
    return item[0].encode("utf-8", "surrogateescape")


def _exists(name: str, dir_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _open_directory(name: str, dir_fd: int) -> int:
    """A descriptor of the directory, or -1 where it is something else."""
    try:
        return os.open(name, _OPEN_DIR, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            return -1
        raise
