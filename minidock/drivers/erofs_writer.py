"""A layer's index: the EROFS image of its metadata, whose files' content stays in the layer's tar.

The image is laid out as superblock and device table, then inodes, a directory's entries side by side, and last what
does not fit beside its inode: the blocks of large directories and long symbolic links.
"""

from __future__ import annotations

import os
import struct
from itertools import accumulate, chain
from typing import TYPE_CHECKING, NamedTuple

from minidock.drivers import erofs_xattrs
from minidock.drivers.erofs_format import (
    BLOCK,
    BLOCK_BITS,
    DIRECTORY_TYPE,
    DIRENT_SIZE,
    FILE_TYPES,
    HEAD_SIZE,
    INLINE,
    INODE,
    INODE_SIZE,
    MAX_BLOCKS,
    MAX_MAJOR,
    MAX_MINOR,
    MAX_NAME,
    MAX_TARGET,
    PLAIN,
    REGULAR_TYPE,
    ROOT_NID,
    SLOT,
    SLOT_BITS,
    SYMLINK_TYPE,
    encode_device,
    head,
)
from minidock.drivers.nodes import InexpressibleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minidock.drivers.nodes import Node

_REGULAR = 8
_DEVICES = frozenset({2, 6})
_DOTS_SIZE = 2 * DIRENT_SIZE + len(b"...")


def build(root: Node, *, tar_size: int) -> bytes:
    """The index of a layer whose root directory is ``root`` and whose tar has ``tar_size`` bytes.

    The same tree gives the same bytes, whatever order its directories were filled in; their number is a multiple of
    512. Raises InexpressibleError where the format cannot hold the tree.
    """
    if root.children is None:
        raise InexpressibleError("its root is not a directory")
    layout = _Layout()
    try:
        layout.place_all(root)
        return _image(layout, tar_size)
    except (struct.error, IndexError) as error:
        raise InexpressibleError("one of its numbers is out of range") from error


class _Body(NamedTuple):
    """What an inode has besides itself: ``attributes`` and ``inline`` follow it, ``outer`` is in blocks of the image's
    last part, from its block ``address`` on. ``size`` and ``links`` are the inode's."""

    attributes: bytes
    inline: bytes
    outer: bytes
    address: int
    size: int
    links: int


class _Directory(NamedTuple):
    """A directory that has its place and waits for its entries: ``names`` are sorted, ``ends`` are where its blocks
    end, as indexes in the names with the dots; the last block is beside the inode if ``inline``."""

    node: Node
    nid: int
    parent: int
    names: list[bytes]
    ends: list[int]
    size: int
    inline: bool
    address: int
    attributes: bytes


class _Layout:
    """Where everything lies.

    ``nids`` holds each inode once, in the image's order, with its number; ``links`` the number of names of those that
    have several; ``bodies`` those that are more than an inode. ``end`` is where the last part begins, of ``outer``
    blocks.
    """

    __slots__ = ("bodies", "end", "links", "nids", "outer")

    def __init__(self) -> None:
        self.nids: dict[Node, int] = {}
        self.links: dict[Node, int] = {}
        self.bodies: dict[Node, _Body] = {}
        self.end = HEAD_SIZE
        self.outer = 0

    def place_all(self, root: Node) -> None:
        """Give ``root`` and everything below its place, and every directory its content."""
        pending: list[_Directory] = []
        self._place_directory(root, ROOT_NID, pending)
        while pending:
            directory = pending.pop()
            self._fill(directory, *self._place_children(directory, pending))
        self.end += -self.end % BLOCK

    def _place_children(self, directory: _Directory, pending: list[_Directory]) -> tuple[list[int], list[int]]:
        """The numbers and file types of a directory's entries in the order of its names."""
        children = directory.node.children or {}
        known = self.nids
        end = self.end
        nids: list[int] = []
        types: list[int] = []
        for name in directory.names:
            node = children[name]
            file_type = FILE_TYPES[node.mode >> 12]
            nid = known.get(node)
            if nid is not None:
                if file_type == DIRECTORY_TYPE:
                    raise InexpressibleError("one of its directories has two names")
                self.links[node] = self.links.get(node, 1) + 1
            elif file_type == REGULAR_TYPE and not node.xattrs and not node.opaque:
                known[node] = nid = end >> SLOT_BITS
                end += INODE_SIZE
            else:
                self.end = end
                if file_type == DIRECTORY_TYPE:
                    nid = self._place_directory(node, directory.nid, pending)
                else:
                    nid = self._place_other(node, file_type)
                end = self.end
            nids.append(nid)
            types.append(file_type)
        self.end = end
        return nids, types

    def _place_other(self, node: Node, file_type: int) -> int:
        """Place what is not a directory."""
        if not file_type or node.opaque or node.children is not None:
            raise InexpressibleError(f"it holds an inode of the impossible mode {node.mode:o}")
        attributes = erofs_xattrs.encode(node.xattrs) if node.xattrs else b""
        target = b""
        if file_type == SYMLINK_TYPE:
            target = node.target
            if not 0 < len(target) <= MAX_TARGET or b"\0" in target:
                raise InexpressibleError("it holds a symbolic link with an impossible target")
        body_size = len(attributes) + len(target)
        inline = INODE_SIZE + body_size <= BLOCK
        nid = self._take(node, body_size if inline else len(attributes), whole=inline and bool(target))
        if body_size:
            content = (target, b"") if inline else (b"", target)
            self.bodies[node] = _Body(attributes, *content, self.outer, len(target), 1)
            self.outer += -(-len(content[1]) // BLOCK)
        return nid

    def _place_directory(self, node: Node, parent: int, pending: list[_Directory]) -> int:
        """Place a directory, whose entries come later. The root's parent is itself."""
        children = node.children
        if children is None:
            raise InexpressibleError("it holds a directory without a list of entries")
        attributes = erofs_xattrs.encode(node.xattrs, opaque=node.opaque) if node.xattrs or node.opaque else b""
        names = sorted(children)
        joined = b"".join(names)
        if names:
            _check_names(children, names, joined)
        last = _DOTS_SIZE + DIRENT_SIZE * len(names) + len(joined)
        ends = [len(names) + 2]
        if last > BLOCK:
            ends, last = _blocks(_with_dots(names))
        inline = INODE_SIZE + len(attributes) + last <= BLOCK
        nid = self._take(node, len(attributes) + (last if inline else 0), whole=inline)
        size = (len(ends) - 1) * BLOCK + last
        pending.append(_Directory(node, nid, parent, names, ends, size, inline, self.outer, attributes))
        self.outer += len(ends) - inline
        return nid

    def _take(self, node: Node, body_size: int, *, whole: bool) -> int:
        """The number of the next inode, with ``body_size`` bytes behind it; a ``whole`` one lies in one block."""
        size = INODE_SIZE + body_size
        if whole and (self.end & BLOCK - 1) + size > BLOCK:
            self.end += -self.end % BLOCK
        self.nids[node] = nid = self.end >> SLOT_BITS
        self.end += size + -size % SLOT
        return nid

    def _fill(self, directory: _Directory, nids: list[int], types: list[int]) -> None:
        """Make a directory's content of its entries' numbers and types."""
        node, nid, parent, names, ends, size, inline, address, attributes = directory
        names = _with_dots(names)
        for dot, number in ((b".", nid), (b"..", parent)):
            at = names.index(dot)
            nids.insert(at, number)
            types.insert(at, DIRECTORY_TYPE)
        blocks: list[bytes] = []
        start = 0
        for end in ends:
            block = names[start:end]
            count = end - start
            offsets = accumulate(map(len, block), initial=DIRENT_SIZE * count)
            entries = chain.from_iterable(zip(nids[start:end], offsets, types[start:end], strict=False))
            blocks.append(struct.pack("<" + "QHBx" * count, *entries) + b"".join(block))
            start = end
        last = blocks.pop() if inline else b""
        outer = b"".join([block.ljust(BLOCK, b"\0") for block in blocks])
        self.bodies[node] = _Body(attributes, last, outer, address, size, types.count(DIRECTORY_TYPE))


def _with_dots(names: list[bytes]) -> list[bytes]:
    """Sorted names with ``.`` and ``..`` in their places, which are not always the first."""
    if not names or names[0] > b"..":
        return [b".", b"..", *names]
    return sorted([b".", b"..", *names])


def _blocks(names: list[bytes]) -> tuple[list[int], int]:
    """Where the blocks of a directory end, as indexes in its ``names`` with the dots, and the bytes of the last one."""
    ends: list[int] = []
    used = 0
    for index, name in enumerate(names):
        size = DIRENT_SIZE + len(name)
        if used + size > BLOCK:
            ends.append(index)
            used = 0
        used += size
    return [*ends, len(names)], used


def _check_names(children: Mapping[bytes, Node], names: list[bytes], joined: bytes) -> None:
    if b"/" in joined or b"\0" in joined or not names[0] or b"." in children or b".." in children:
        raise InexpressibleError("it holds a name that no file can have")
    if len(max(names, key=len)) > MAX_NAME:
        raise InexpressibleError(f"it holds a name longer than {MAX_NAME} bytes")


def _image(layout: _Layout, tar_size: int) -> bytes:
    """Write everything to its place."""
    outer_start = layout.end >> BLOCK_BITS
    blocks = outer_start + layout.outer
    tar_blocks = tar_size >> BLOCK_BITS
    if blocks + tar_blocks > MAX_BLOCKS:
        raise InexpressibleError("it has more blocks than an address can name")
    image = bytearray(blocks << BLOCK_BITS)
    image[:HEAD_SIZE] = head(blocks=blocks, inodes=len(layout.nids), tar_blocks=tar_blocks)
    links, bodies = layout.links, layout.bodies
    pack = INODE.pack_into
    for node, nid in layout.nids.items():
        mode = node.mode
        lies, attributes_count, where, size = PLAIN, 0, 0, 0
        names = links.get(node, 1)
        if mode >> 12 == _REGULAR:
            size = node.size
            if size:
                offset = node.offset
                if offset & BLOCK - 1 or offset < 0 or (offset + size - 1) >> BLOCK_BITS >= tar_blocks:
                    raise _misplaced(offset, size)
                where = blocks + (offset >> BLOCK_BITS)
        elif mode >> 12 in _DEVICES:
            where = _device(node.rdev)
        if node in bodies:
            body = bodies[node]
            attributes_count = erofs_xattrs.count_of(body.attributes)
            if body.size:
                names, size = max(names, body.links), body.size
                lies, where = _content(image, nid, body, outer_start)
            start = (nid << SLOT_BITS) + INODE_SIZE
            image[start : start + len(body.attributes)] = body.attributes
        pack(
            image, nid << SLOT_BITS, lies, attributes_count, mode, 0, size, where, nid,
            node.uid, node.gid, node.mtime, 0, names, 0, 0,
        )  # fmt: skip
    return bytes(image)


def _content(image: bytearray, nid: int, body: _Body, outer_start: int) -> tuple[int, int]:
    """Write a directory's or a symbolic link's content; returns how it lies (i_format) and its first block."""
    address = outer_start + body.address if body.outer else 0
    start = address << BLOCK_BITS
    image[start : start + len(body.outer)] = body.outer
    if not body.inline:
        return PLAIN, address
    start = (nid << SLOT_BITS) + INODE_SIZE + len(body.attributes)
    image[start : start + len(body.inline)] = body.inline
    return INLINE, address


def _device(rdev: int) -> int:
    major, minor = os.major(rdev), os.minor(rdev)
    if major > MAX_MAJOR or minor > MAX_MINOR:
        raise InexpressibleError(f"it holds the device {major}:{minor}, whose number is too large")
    return encode_device(major, minor)


def _misplaced(offset: int, size: int) -> InexpressibleError:
    if offset % BLOCK:
        return InexpressibleError(f"a file's content begins at its tar's byte {offset}, not a multiple of {BLOCK}")
    return InexpressibleError(f"a file's {size} bytes from its tar's byte {offset} on reach beyond the tar's end")
