"""A strict reader of indexes: it takes what the writer may have made and nothing else.

Nothing here follows the writer's layout, but everything that the kernel would read is checked before it is used: where
each thing lies, that no two overlap and that what lies between them is empty, the order of names, the number of links,
and that every directory is reached once, by its parent. So a tree that comes back is the tree that a mount shows.
"""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from operator import le, lt

from minidock.drivers import erofs_xattrs
from minidock.drivers.erofs_format import (
    BLOCK,
    BLOCK_BITS,
    DEVICE_TYPES,
    DIRECTORY_TYPE,
    DIRENT_SIZE,
    FILE_TYPES,
    HEAD_SIZE,
    INLINE,
    INODE,
    INODE_SIZE,
    MAX_NAME,
    MAX_TARGET,
    PLAIN,
    REGULAR_TYPE,
    ROOT_NID,
    SLOT_BITS,
    SYMLINK_TYPE,
    counts,
    decode_device,
    head,
    uuid_of,
)
from minidock.drivers.nodes import Node
from minidock.errors import CorruptObjectError

# Where in a directory's entry the offset of its name is.
_NAME_OFFSET = 8


def read(index: bytes, *, tar_size: int) -> Node:
    """The tree that the image ``index`` holds for a layer whose tar has ``tar_size`` bytes; its root directory.

    Raises CorruptObjectError for anything that ``erofs_writer.build`` would not make. The image's UUID is free.
    """
    try:
        return _Reader(index, tar_size).tree()
    except (ValueError, struct.error) as error:
        raise CorruptObjectError(f"the layer's index is malformed: {error}") from error


class _Reader:
    """One image on its way to a tree.

    ``_known`` holds the inodes read so far by number; ``_links`` what those other than directories claim to have of
    names, where it is not one, and ``_names`` how many were found, where it is not one. ``_starts`` and ``_ends`` are
    of all the parts of the image that are in use.
    """

    __slots__ = (
        "_blocks", "_ends", "_index", "_inodes", "_known", "_left", "_links", "_names", "_pending", "_starts",
        "_tar_blocks",
    )  # fmt: skip

    def __init__(self, index: bytes, tar_size: int) -> None:
        if len(index) % BLOCK or len(index) < HEAD_SIZE:
            raise ValueError("it is cut")
        self._index = index
        self._tar_blocks = tar_size >> BLOCK_BITS
        self._inodes, self._blocks = counts(index)
        if self._blocks << BLOCK_BITS != len(index):
            raise ValueError("its superblock counts other blocks")
        wanted = head(blocks=self._blocks, inodes=self._inodes, tar_blocks=self._tar_blocks, uuid=uuid_of(index))
        if index[:HEAD_SIZE] != wanted:
            raise ValueError("its superblock is not an index's")
        self._known: dict[int, Node] = {}
        self._links: dict[int, int] = {}
        self._names: dict[int, int] = {}
        self._starts = [0]
        self._ends = [HEAD_SIZE]
        self._left = len(index)
        self._pending: list[tuple[Node, int, int, bytes, int]] = []

    def tree(self) -> Node:
        root = self._inode(ROOT_NID, DIRECTORY_TYPE, ROOT_NID)
        while self._pending:
            self._read_directory(*self._pending.pop())
        if len(self._known) != self._inodes:
            raise ValueError("its superblock counts other inodes")
        if self._links != self._names:
            raise ValueError("an inode counts other links")
        self._check_gaps()
        return root

    def _read_directory(self, node: Node, nid: int, parent: int, content: bytes, links: int) -> None:
        """Give a directory its entries."""
        names, nids, types = _entries(content)
        if not all(map(lt, names, names[1:])):
            raise ValueError("the names of a directory are not sorted")
        children = dict(zip(names, zip(nids, types, strict=True), strict=True))
        if children.pop(b".", None) != (nid, DIRECTORY_TYPE) or children.pop(b"..", None) != (parent, DIRECTORY_TYPE):
            raise ValueError("the dots of a directory lead elsewhere")
        if types.count(DIRECTORY_TYPE) != links:
            raise ValueError("a directory counts other links")
        known = self._known
        found = node.children = {}
        for name, (number, file_type) in children.items():
            child = known.get(number)
            if child is None:
                child = self._inode(number, file_type, nid)
            elif file_type == DIRECTORY_TYPE or FILE_TYPES[child.mode >> 12] != file_type:
                raise ValueError("a directory has two names, or an entry another type than its inode")
            else:
                self._names[number] = self._names.get(number, 1) + 1
            found[name] = child

    def _inode(self, nid: int, file_type: int, parent: int) -> Node:
        """Read an inode that was not seen before, of the type that its entry in the directory ``parent`` claims."""
        start = nid << SLOT_BITS
        if start > len(self._index) - INODE_SIZE:
            raise ValueError("an inode lies beyond the end")
        (
            lies, xattr_count, mode, reserved, size, where, number, uid, gid, mtime, nsec, links, reserved2, reserved3,
        ) = INODE.unpack_from(self._index, start)  # fmt: skip
        if number != nid or reserved or nsec or reserved2 or reserved3:
            raise ValueError("an inode's reserved fields are in use")
        if FILE_TYPES[mode >> 12] != file_type or not file_type:
            raise ValueError("an entry has another type than its inode")
        self._known[nid] = node = Node(mode, uid, gid, mtime)
        end = start + INODE_SIZE
        if xattr_count:
            end = self._read_xattrs(node, end, erofs_xattrs.size_of(xattr_count))
        if file_type == DIRECTORY_TYPE:
            content = self._content(start, end, lies, size, where)
            self._pending.append((node, nid, parent, content, links))
            return node
        if links != 1:
            self._links[nid] = links
        if file_type == SYMLINK_TYPE:
            if not 0 < size <= MAX_TARGET or (lies == INLINE and where):
                raise ValueError("a symbolic link's target is too long")
            node.target = self._content(start, end, lies, size, where)
            if b"\0" in node.target:
                raise ValueError("a symbolic link's target holds a NUL byte")
            return node
        self._use(start, end)
        if lies != PLAIN:
            raise ValueError("an inode without content in the index has some")
        if file_type == REGULAR_TYPE:
            self._place(node, size, where)
        else:
            _specify(node, size, where, device=file_type in DEVICE_TYPES)
        return node

    def _place(self, node: Node, size: int, where: int) -> None:
        """Give a regular file its size and where its content is in the tar."""
        if size:
            block = where - self._blocks
            if not 0 <= block <= self._tar_blocks - (size + BLOCK - 1 >> BLOCK_BITS):
                raise ValueError("a file's content lies outside the tar")
            node.size = size
            node.offset = block << BLOCK_BITS
        elif where:
            raise ValueError("an empty file has content")

    def _read_xattrs(self, node: Node, start: int, size: int) -> int:
        """Give a node its extended attributes; returns where they end."""
        end = start + size
        node.xattrs, node.opaque = erofs_xattrs.decode(self._index[start:end], size)
        if node.opaque and node.children is None:
            raise ValueError("what is not a directory hides what is beneath")
        return end

    def _content(self, start: int, end: int, lies: int, size: int, where: int) -> bytes:
        """What a directory or a symbolic link holds: in blocks from ``where`` on, behind its inode, or both."""
        outer = size
        if lies == INLINE:
            outer = max(size - 1, 0) & -BLOCK
            if start // BLOCK != (end + size - outer - 1) // BLOCK:
                raise ValueError("content beside its inode crosses the end of a block")
        elif lies != PLAIN:
            raise ValueError("an inode's content lies in an unknown way")
        self._use(start, end + size - outer)
        tail = self._index[end : end + size - outer]
        if not outer:
            if where:
                raise ValueError("an inode without blocks names one")
            return tail
        first = where << BLOCK_BITS
        self._use(first, first + outer + -outer % BLOCK)
        if any(self._index[first + outer : first + outer + -outer % BLOCK]):
            raise ValueError("what follows a content in its last block is in use")
        return self._index[first : first + outer] + tail

    def _use(self, start: int, end: int) -> None:
        """Take note of a part of the image. All together are never more than the image, which bounds the work."""
        self._left -= end - start
        if self._left < 0 or end > len(self._index):
            raise ValueError("its parts overlap, or lie beyond the end")
        self._starts.append(start)
        self._ends.append(end)

    def _check_gaps(self) -> None:
        """See that no two parts overlap, and that what is between them is empty."""
        # Of parts that do not overlap the first ends before the second begins, and so on; of others some do not.
        starts = sorted(self._starts)
        ends = sorted(self._ends)
        starts.append(len(self._index))
        if not all(map(le, ends, starts[1:])):
            raise ValueError("its parts overlap")
        gaps = b"".join([self._index[end:start] for end, start in zip(ends, starts[1:], strict=True) if end != start])
        if any(gaps):
            raise ValueError("what lies between its parts is in use")


def _specify(node: Node, size: int, where: int, *, device: bool) -> None:
    """Give a special file its device's number."""
    if size or (where and not device):
        raise ValueError("a special file has content")
    if where:
        node.rdev = os.makedev(*decode_device(where))


def _entries(content: bytes) -> tuple[list[bytes], list[int], list[int]]:
    """The names of a directory, their inodes' numbers and their file types."""
    names: list[bytes] = []
    nids: list[int] = []
    types: list[int] = []
    for start in range(0, len(content), BLOCK):
        block = content[start : start + BLOCK]
        if start + BLOCK < len(content):
            # The last name of a block that is not the last ends at a NUL byte or with the block.
            block = block.rstrip(b"\0")
        first = int.from_bytes(block[_NAME_OFFSET : _NAME_OFFSET + 2], "little")
        count, rest = divmod(first, DIRENT_SIZE)
        if rest or not count or first >= len(block):
            raise ValueError("a directory's block is malformed")
        fields = struct.unpack_from("<" + "QHBB" * count, block)
        offsets = [*fields[1::4], len(block)]
        found = [block[here:there] for here, there in pairwise(offsets)]
        if any(fields[3::4]) or not all(map(lt, offsets, offsets[1:])) or len(max(found, key=len)) > MAX_NAME:
            raise ValueError("a directory's block is malformed")
        if b"/" in (joined := block[first:]) or b"\0" in joined:
            raise ValueError("a directory holds a name that no file can have")
        names += found
        nids += fields[0::4]
        types += fields[2::4]
    return names, nids, types
