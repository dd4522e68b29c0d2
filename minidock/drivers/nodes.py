"""A layer as a tree of inodes in memory: what its index is built from."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from minidock.drivers.xattrs import NO_XATTRS

if TYPE_CHECKING:
    from collections.abc import Mapping


class InexpressibleError(Exception):
    """An index cannot hold this layer, so that it has to be unpacked; the text is a phrase that says why."""


class Node:
    """One inode. Two names of one file (hard links) are one node in two places.

    ``mode`` is st_mode with its type, ``mtime`` whole seconds, ``rdev`` as os.makedev gives it. A regular file's
    ``size`` bytes lie in the layer's tar from ``offset`` on, a multiple of 512 (0 for an empty file). ``target`` is a
    symbolic link's text. ``children`` are a directory's entries by name, None for anything else; ``opaque`` says that
    it hides what the layers beneath have there. A deletion is a character device 0:0.
    """

    __slots__ = ("children", "gid", "mode", "mtime", "offset", "opaque", "rdev", "size", "target", "uid", "xattrs")

    def __init__(
        self,
        mode: int,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 0,
        *,
        size: int = 0,
        offset: int = 0,
        target: bytes = b"",
        rdev: int = 0,
        xattrs: Mapping[str, bytes] = NO_XATTRS,
    ) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.size = size
        self.offset = offset
        self.target = target
        self.rdev = rdev
        self.xattrs = xattrs
        self.children: dict[bytes, Node] | None = {} if stat.S_ISDIR(mode) else None
        self.opaque = False


def whiteout() -> Node:
    """A deletion as overlayfs wants it."""
    return Node(stat.S_IFCHR)
