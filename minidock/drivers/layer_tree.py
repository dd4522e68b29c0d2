"""A layer's tree in memory, made of its tar's entries: what unpacking the tar makes on disk, without the disk.

Each decision is that of ``unpack`` and ``parents``: which link a path follows, what a missing parent looks like, what
an entry replaces, which marks remain. Only the layers beneath are read, by descriptor, where the tar leaves something
to them.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from minidock.drivers.beneath import Attributes, Beneath, join, no_directory
from minidock.drivers.inode_xattrs import kept
from minidock.drivers.nodes import InexpressibleError, Node, whiteout
from minidock.drivers.tar_format import (
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    LINK,
    MAX_COMPONENT,
    MAX_NAME,
    REGULAR,
    SYMLINK,
    shorten,
)
from minidock.drivers.whiteouts import OPAQUE, PREFIX, deleted_name, is_marker
from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.drivers.tar_format import Entry
    from minidock.drivers.tar_reader import TarReader

    Children = dict[bytes, Node]

# The kernel's device numbers have 12 and 20 bits; the reader bounds both by 20.
_MAX_MAJOR = 0xFFF
# As os.fsencode does it, which looks its encoding up anew for each name.
_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()


def scan(reader: TarReader, below: Callable[[], int] | None) -> LayerTree:
    """The finished tree of a whole tar; ``below`` is as in ``LayerTree``. Raises what ``LayerTree.add`` and ``finish``
    do, and ArchiveError and OSError from the reader."""
    tree = LayerTree(below)
    add = tree.add
    for entry in reader:
        add(entry, reader.offset)
    tree.finish()
    return tree


class LayerTree:
    """Takes a layer's entries in the order of its tar and makes its tree of nodes, ``root``.

    ``below`` gives a directory with the merged view of the layers beneath when it is first needed, which stays the
    caller's; None when there are none.
    """

    __slots__ = ("_attributed", "_beneath", "_directories", "_has_root", "_top", "root")

    def __init__(self, below: Callable[[], int] | None) -> None:
        self._beneath = Beneath(below)
        self._top: Children = {}
        self.root = Node(stat.S_IFDIR)
        self.root.children = self._top
        self._has_root = False
        # What is in a directory, by the directory's path without symbolic links.
        self._directories: dict[str, Children] = {"": self._top}
        # Directories with extended attributes, which count once the last entry for the directory is known.
        self._attributed: dict[str, Node] = {}

    @property
    def self_contained(self) -> bool:
        """Whether the tree is the same above any layers; final when the tree is finished."""
        return self._beneath.self_contained

    def add(self, entry: Entry, offset: int) -> None:
        """Put the next entry in its place; ``offset`` is where in the tar its content begins.

        Raises ArchiveError where unpacking would, InexpressibleError, OSError from the layers beneath.
        """
        name, kind = entry[:2]
        if PREFIX in name and is_marker(name):
            self._mark(name)
            return
        if not name:
            self._has_root = True
            self._give(self.root, "", Attributes(entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs))
            return
        directory, _, base = name.rpartition("/")
        children = self._directories.get(directory)
        if children is None:
            children, directory = self._walk(directory)
            entry = entry._replace(name=join(directory, base))
        key = base.encode(_ENCODING, _ERRORS)
        if kind == DIRECTORY:
            self._add_directory(children, key, join(directory, base), entry)
            return
        node = self._linked(entry, directory, base) if kind == LINK else _inode(entry, offset)
        there = children.pop(key, None)
        if there is not None:
            if there.children is not None:
                self._forget_directories()
            if kind == LINK:
                # What was replaced may have been on the way to the target.
                node = self._linked(entry, directory, base)
                if key in children:
                    raise InexpressibleError(f"the hard link {shorten(name)} is on the way to its own target")
        children[key] = node
        if self._beneath.deleted:
            self._beneath.deleted.discard(join(directory, base))

    def finish(self) -> Node:
        """Settle what only the whole tar can tell: the root, marks, directories' attributes; returns the root.

        Raises as ``add`` does.
        """
        if not self._has_root:
            self._has_root = True
            self._give(self.root, "", self._beneath.root())
        self._beneath.settle(self._mode_in_root)
        for path, node in self._attributed.items():
            if self._find(path) is node:
                node.xattrs = kept(node.mode, node.xattrs, path or "/")
        for path in self._beneath.deleted:
            directory, _, base = path.rpartition("/")
            parent = self._find(directory)
            if parent is not None and parent.children is not None:
                parent.children.setdefault(_encode(base), whiteout())
        for path in self._beneath.opaque:
            hiding = self._find(path)
            if hiding is not None and hiding.children is not None:
                hiding.opaque = True
        return self.root

    def _add_directory(self, children: Children, key: bytes, path: str, entry: Entry) -> None:
        node = children.get(key)
        if node is None or node.children is None:
            if node is not None:
                self._beneath.opaque.add(path)
            node = self._make_directory(children, key, path)
        self._give(node, path, Attributes(entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs))

    def _make_directory(self, children: Children, key: bytes, path: str) -> Node:
        node = children[key] = Node(stat.S_IFDIR)
        node.children = self._directories[path] = {}
        self._beneath.made_directory(path)
        return node

    def _give(self, node: Node, path: str, attributes: Attributes) -> None:
        mode, node.uid, node.gid, mtime, node.xattrs = attributes
        node.mode = stat.S_IFDIR | mode
        node.mtime = mtime or 0
        if node.xattrs:
            self._attributed[path] = node

    def _linked(self, entry: Entry, directory: str, base: str) -> Node:
        """The file that a hard link named ``base`` in ``directory`` is to be."""
        path = join(directory, base)
        where, _, target = entry.linkname.rpartition("/")
        children, where = self._enter(where)
        if join(where, target) == path:
            raise ArchiveError(f"the tar stream's hard link {shorten(path)} points to itself")
        node = children.get(_encode(target))
        if node is not None and node.children is None:
            return node
        what = "is a directory"
        if node is None:
            below = self._beneath.status(where, target)
            if below is None:
                what = "is missing"
            else:
                os.close(below[1])
                if not stat.S_ISDIR(below[0].st_mode):
                    raise InexpressibleError(f"{shorten(path)} is a hard link into an earlier layer")
        raise ArchiveError(f"the target {shorten(entry.linkname)} of the tar stream's hard link {shorten(path)} {what}")

    def _mark(self, name: str) -> None:
        beneath = self._beneath
        directory, _, base = name.rpartition("/")
        if base == OPAQUE and not is_marker(directory):
            beneath.opaque.add(self._enter(directory)[1])
            return
        victim = deleted_name(name)
        if victim is None:
            return
        directory, _, base = victim.rpartition("/")
        children, directory = self._enter(directory)
        there = children.get(_encode(base))
        if there is None:
            beneath.deleted.add(join(directory, base))
        elif there.children is not None:
            beneath.opaque.add(join(directory, base))

    def _enter(self, path: str) -> tuple[Children, str]:
        """What is in the directory ``path``, and its path without symbolic links."""
        children = self._directories.get(path)
        return (children, path) if children is not None else self._walk(path)

    def _walk(self, path: str) -> tuple[Children, str]:
        """Component by component, with symbolic links followed inside the root and missing directories made."""
        pending = path.split("/")[::-1]
        here: list[str] = []
        trail = [self._top]
        way = self._beneath.way(path)
        while pending:
            name = pending.pop()
            if name in {"", "."}:
                continue
            if name == "..":
                del here[-1:]
                if len(trail) > 1:
                    trail.pop()
                continue
            target = self._step(trail, here, name, path)
            if target is None:
                continue
            pending += way.follow(target)
            if target.startswith("/"):
                here.clear()
                del trail[1:]
        canonical = "/".join(here)
        if canonical != path:
            _check_length(canonical, path)
        self._directories[canonical] = trail[-1]
        return trail[-1], canonical

    def _step(self, trail: list[Children], here: list[str], name: str, path: str) -> str | None:
        """Go over one component: None when it was a directory, or is one now; a symbolic link's target."""
        key = _encode(name)
        node = trail[-1].get(key)
        if node is None:
            if len(key) > MAX_COMPONENT:
                raise InexpressibleError(f"the path {shorten(path)} leads through a name that is too long")
            directory = "/".join(here)
            if not path.startswith(directory):
                _check_length(directory, path)
            found = self._beneath.component(directory, name, path, Attributes())
            if isinstance(found, str):
                return found
            missing = join(directory, name)
            node = self._make_directory(trail[-1], key, missing)
            self._give(node, missing, found)
        elif stat.S_ISLNK(node.mode):
            return os.fsdecode(node.target)
        if node.children is None:
            raise no_directory(path)
        trail.append(node.children)
        here.append(name)
        return None

    def _forget_directories(self) -> None:
        """A directory was replaced: those below it are no longer where they were."""
        self._directories.clear()
        self._directories[""] = self._top

    def _find(self, path: str) -> Node | None:
        """The node at a path without symbolic links; None where there is none."""
        node = self.root
        for name in _encode(path).split(b"/") if path else ():
            found = node.children.get(name) if node.children is not None else None
            if found is None:
                return None
            node = found
        return node

    def _mode_in_root(self, name: str) -> int | None:
        node = self._top.get(_encode(name))
        return None if node is None else node.mode


def _check_length(canonical: str, path: str) -> None:
    """Links may add up to a path that neither the kernel nor another tar takes in one piece with a name in it."""
    if len(_encode(canonical)) > MAX_NAME - MAX_COMPONENT - 1:
        raise InexpressibleError(f"the path {shorten(path)} leads to one that is too long for the kernel")


def _encode(name: str) -> bytes:
    return name.encode(_ENCODING, _ERRORS)


def _inode(entry: Entry, offset: int) -> Node:
    """The inode of an entry that is neither directory nor hard link."""
    name, kind, mode, uid, gid, size, mtime, target, major, minor, xattrs, segments = entry
    rdev = 0
    text = b""
    if kind == REGULAR:
        if segments is not None:
            raise InexpressibleError(f"{shorten(name)} is stored with holes")
        mode |= stat.S_IFREG
    elif kind == SYMLINK:
        # Linux has no others.
        mode = stat.S_IFLNK | 0o777
        text = _encode(target)
    elif kind in {CHAR_DEVICE, BLOCK_DEVICE}:
        mode |= stat.S_IFCHR if kind == CHAR_DEVICE else stat.S_IFBLK
        rdev = os.makedev(major, minor)
        if kind == CHAR_DEVICE and rdev == 0:
            raise ArchiveError(f"the tar stream holds the character device 0:0 {shorten(name)}, which marks a deletion")
        if major > _MAX_MAJOR:
            raise InexpressibleError(f"{shorten(name)} has the device number {major}:{minor}")
    else:
        mode |= stat.S_IFIFO
    if xattrs:
        xattrs = kept(mode, xattrs, name)
    if kind != REGULAR:
        return Node(mode, uid, gid, mtime, target=text, rdev=rdev, xattrs=xattrs)
    return Node(mode, uid, gid, mtime, size=size, offset=offset if size else 0, xattrs=xattrs)
