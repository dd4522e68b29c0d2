"""Where a step's files go, worked out before anything is written: a tree of what its layer will hold.

The tree is the one that copying the files into a writable layer would leave there. What the layers beneath have is
looked at, never changed. Whatever cannot be foreseen with certainty is refused, and the step copies after all.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.selection import Entry, Group, Selection, join, read_xattrs
from minidock.build.tree import DIRECTORY_FLAGS, open_real
from minidock.build.writer import Look, destination_path, is_directory_name, is_link_there, is_there, looks_alike
from minidock.kernel.files import list_xattrs
from minidock.model.dating import SECOND, Dating

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_MAX_NAME = 255
_DEFAULT_ACL = "system.posix_acl_default"
# Attributes that are stored as they are given, whatever the mode is.
_PLAIN_XATTRS = ("user.", "trusted.", "security.capability")
# From so many entries on it is faster to list a directory than to ask for each name.
_LISTED = 16


class UnforeseenError(Exception):
    """What the step would do cannot be told beforehand: it has to be done in a writable layer."""


class Part:
    """A directory's worth of a selection: what ``group`` holds. ``prefix`` and an entry's name make the entry's path in
    the selection; ``owner`` is that of all copies, None where each file keeps its own."""

    __slots__ = ("group", "owner", "prefix", "selection")

    def __init__(self, selection: Selection, group: Group, look: Look) -> None:
        self.selection = selection
        self.group = group
        self.prefix = f"{group.path}/" if group.path else ""
        self.owner = look.owner or (None if selection.tree.keep_owner else (0, 0))


class Text(NamedTuple):
    """A file with content of its own."""

    data: bytes
    mode: int
    uid: int
    gid: int
    mtime: int


class Directory:
    """A directory of the layer: ``mode`` without its type, ``mtime`` in whole seconds. ``children`` are by name; for a
    file of a selection, its part and entry. ``maker`` is what makes it, None for one that is there already; ``dated``
    says that it has the time that a directory gets which is made or changed here."""

    __slots__ = ("children", "dated", "gid", "maker", "mode", "mtime", "uid", "xattrs")

    def __init__(
        self,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        *,
        xattrs: Mapping[str, bytes],
        maker: object,
        dated: bool = False,
    ) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.xattrs = xattrs
        self.maker = maker
        self.dated = dated
        self.children: dict[str, Directory | tuple[Part, Entry] | Text] = {}


def newest_of(selections: Iterable[Selection]) -> int | None:
    """The latest time of all that is selected, in seconds; None where that is nothing. The digests are known."""
    latest = [
        max([entry.status.st_mtime_ns for entry in group.entries])
        for selection in selections
        for group in selection.groups
        if group.entries
    ]
    return max(latest) // SECOND if latest else None


class Placement:
    """Collects what a step puts to ``destination`` above the tree ``view``; ``root`` is what its layer holds then.
    ``dating``, which has an ``instead``, gives the times that the files do not bring themselves.

    ``root`` is None as long as that is nothing. Methods raise UnforeseenError, after which the placement is of no use,
    and OSError, or MinidockError for what cannot be copied anywhere.
    """

    __slots__ = ("_dating", "_destination", "_existing", "_known", "_look", "_made", "_merged", "_path", "_view")

    def __init__(self, view: int, destination: str, look: Look, dating: Dating) -> None:
        self._view = view
        self._destination = destination
        self._look = look
        self._dating = dating
        self._made = dating.instead or 0
        self._known: dict[str, Directory] = {}
        # By path, the selection whose directory an older one has become.
        self._merged: dict[str, Selection] = {}
        self._path = destination_path(view, destination)
        if any(len(os.fsencode(name)) > _MAX_NAME for name in self._path.split("/")):
            raise UnforeseenError
        self._existing = self._kind(self._path)

    @property
    def root(self) -> Directory | None:
        root = self._known.get("")
        # A root that differs in its time alone is no difference.
        return root if root is not None and root.children else None

    def add(self, selection: Selection) -> None:
        """Place what a source selects; its digest is known."""
        for values in selection.xattrs.values():
            if not all(name.startswith(_PLAIN_XATTRS) for name in values):
                raise UnforeseenError
        directory, name = self._target("" if selection.is_directory else selection.name)
        self._make_directories(directory, selection)
        for group in selection.groups:
            self._add_group(Part(selection, group, self._look), join(directory, group.path), name)

    def add_text(self, name: str, data: bytes) -> None:
        """Place a file called ``name`` with ``data`` in it."""
        maker = object()
        directory, name = self._target(name)
        self._make_directories(directory, maker)
        with self._beneath(directory, 1) as beneath:
            there = beneath.status(name)
        if there is not None and (stat.S_ISDIR(there.st_mode) or there.st_mtime_ns // SECOND == self._made):
            raise UnforeseenError
        parent = self._touch(directory, maker)
        if name in parent.children:
            raise UnforeseenError
        mode = self._look.mode_for(0o644)
        parent.children[name] = Text(data, mode, *(self._look.owner or (0, 0)), self._made)

    def _target(self, name: str) -> tuple[str, str]:
        """The directory that something goes to, and the name that a single file gets there; as ``open_target``."""
        existing = stat.S_IFDIR if self._path in self._known else self._existing
        if not name or is_directory_name(self._destination) or existing == stat.S_IFDIR:
            if existing not in (0, stat.S_IFDIR):
                raise UnforeseenError
            return self._path, name
        return os.path.split(self._path)

    def _add_group(self, part: Part, path: str, name: str) -> None:
        entries, directory = part.group.entries, self._known.get(path)
        if directory is not None and directory.maker is part.selection and not directory.children and not name:
            directory.children = {entry.name: (part, entry) for entry in entries}
            for entry in entries:
                if stat.S_ISDIR(entry.status.st_mode):
                    self._add_directory(directory, part, entry, path)
            return
        with self._beneath(path, len(entries)) as beneath:
            for entry in entries:
                if not self._stands(part, entry, path, name or entry.name, beneath):
                    self._put(self._touch(path, part.selection), part, entry, path, name or entry.name)

    def _put(self, directory: Directory, part: Part, entry: Entry, path: str, name: str) -> None:
        if stat.S_ISDIR(entry.status.st_mode):
            self._add_directory(directory, part, entry, path)
        else:
            directory.children[name] = (part, entry)

    def _add_directory(self, parent: Directory, part: Part, entry: Entry, path: str) -> None:
        status, selection = entry.status, part.selection
        made = Directory(
            self._look.mode_of(status),
            *(part.owner or (status.st_uid, status.st_gid)),
            self._look.seconds(status),
            xattrs=selection.xattrs.get(part.prefix + entry.name, {}),
            maker=selection,
        )
        parent.children[entry.name] = made
        self._known[join(path, entry.name)] = made

    def _stands(self, part: Part, entry: Entry, path: str, name: str, beneath: _Beneath) -> bool:
        """Whether there is nothing more to be done for an entry: a directory that exists, or the very same file."""
        is_directory = stat.S_ISDIR(entry.status.st_mode)
        directory = self._known.get(path)
        planned = directory.children.get(name) if directory is not None else None
        if planned is not None:
            if is_directory and isinstance(planned, Directory):
                self._merge(part, entry, join(path, name))
                return True
            raise UnforeseenError
        there = beneath.status(name)
        if there is None:
            return False
        if is_directory or stat.S_ISDIR(there.st_mode):
            if is_directory and stat.S_ISDIR(there.st_mode):
                self._merge(part, entry, join(path, name))
                return True
            raise UnforeseenError
        return self._is_same(part, entry, name, beneath)

    def _merge(self, part: Part, entry: Entry, path: str) -> None:
        """Let a directory that exists take owner, mode, attributes and time of the one that is copied over it. One that
        is just so already is no part of the layer for that."""
        status, xattrs = entry.status, part.selection.xattrs.get(part.prefix + entry.name, {})
        there = self._known.get(path) or self._read(path)
        if _DEFAULT_ACL in there.xattrs:
            raise UnforeseenError
        mode, seconds = self._look.mode_of(status), self._look.seconds(status)
        uid, gid = part.owner or (status.st_uid, status.st_gid)
        wanted = {**there.xattrs, **xattrs}
        if (there.mode, there.uid, there.gid, there.mtime, there.xattrs) != (mode, uid, gid, seconds, wanted):
            directory = self._enter(path)
            directory.mode, directory.uid, directory.gid, directory.xattrs = mode, uid, gid, wanted
            directory.mtime, directory.dated = seconds, False
        self._merged[path] = part.selection

    def _is_same(self, part: Part, entry: Entry, name: str, beneath: _Beneath) -> bool:
        """Whether a file that exists beneath stays in its place. If not, the layer will hold the new one, which differs
        in something that a layer tells apart; what cannot be told is refused."""
        selection, group = part.selection, part.group
        inner, kind = part.prefix + entry.name, stat.S_IFMT(entry.status.st_mode)
        there = os.stat(name, dir_fd=beneath.fd, follow_symlinks=False)
        if kind == stat.S_IFREG and entry.status.st_nlink > 1:
            raise UnforeseenError
        if not looks_alike(selection, entry, self._look, there):
            return False
        if kind == stat.S_IFREG and there.st_nlink == 1:
            source = selection.open_group(group)
            try:
                return is_there(selection, entry, inner, self._look, source=source, target=beneath.fd, name=name)
            finally:
                os.close(source)
        if kind != stat.S_IFLNK or inner in selection.xattrs or read_xattrs(f"/proc/self/fd/{beneath.fd}/{name}"):
            raise UnforeseenError
        return is_link_there(selection, entry, self._look, target=beneath.fd, name=name)

    def _make_directories(self, path: str, maker: object) -> None:
        missing: list[str] = []
        while path not in self._known and (kind := self._kind(path)) != stat.S_IFDIR:
            if kind:
                raise UnforeseenError
            path, name = os.path.split(path)
            missing.append(name)
        mode = self._look.mode_for(0o755, directory=True)
        for name in reversed(missing):
            parent = self._touch(path, maker)
            made = Directory(mode, *(self._look.owner or (0, 0)), self._made, xattrs={}, maker=maker, dated=True)
            path = join(path, name)
            parent.children[name] = self._known[path] = made

    def _touch(self, path: str, maker: object) -> Directory:
        """The directory, into which something new is put: that gives it a new time, unless its maker is still at it and
        sets the time last."""
        directory = self._enter(path)
        merged = self._merged.get(path)
        if merged is not None and merged is not maker:
            raise UnforeseenError
        if directory.maker is not maker and merged is None:
            if _DEFAULT_ACL in directory.xattrs:
                raise UnforeseenError
            if not directory.dated:
                below = directory.mtime if directory.maker is None else None
                directory.mtime, directory.dated = self._dating.changed(below), True
        return directory

    def _enter(self, path: str) -> Directory:
        """A directory of the layer; one that exists beneath as it is there, and so are those above it."""
        below = path
        chain: list[str] = []
        while (directory := self._known.get(below)) is None:
            chain.append(below)
            if not below:
                break
            below = os.path.dirname(below)
        for below in reversed(chain):
            found = self._read(below)
            if directory is not None:
                directory.children[os.path.basename(below)] = found
            self._known[below] = directory = found
        assert directory is not None
        return directory

    def _read(self, path: str) -> Directory:
        fd = open_real(self._view, path, DIRECTORY_FLAGS)
        try:
            status = os.fstat(fd)
            seconds = self._dating.cut(status.st_mtime_ns // SECOND)
            mode = stat.S_IMODE(status.st_mode)
            return Directory(mode, status.st_uid, status.st_gid, seconds, xattrs=list_xattrs(fd), maker=None)
        finally:
            os.close(fd)

    def _kind(self, path: str) -> int:
        try:
            fd = open_real(self._view, path)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        try:
            return stat.S_IFMT(os.fstat(fd).st_mode)
        finally:
            os.close(fd)

    @contextmanager
    def _beneath(self, path: str, count: int) -> Iterator[_Beneath]:
        """What the layers beneath have in a directory, of which about ``count`` names are asked."""
        try:
            fd = open_real(self._view, path, DIRECTORY_FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            yield _Beneath(-1, frozenset())
            return
        try:
            yield _Beneath(fd, frozenset(os.listdir(fd)) if count > _LISTED else None)
        finally:
            os.close(fd)


class _Beneath:
    """A directory of the layers beneath, ``fd`` -1 where there is none; ``names`` if they were listed."""

    __slots__ = ("_names", "fd")

    def __init__(self, fd: int, names: frozenset[str] | None) -> None:
        self.fd = fd
        self._names = names

    def status(self, name: str) -> os.stat_result | None:
        if self._names is not None and name not in self._names:
            return None
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
