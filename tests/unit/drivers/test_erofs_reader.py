"""The strict reader of indexes against images that were made to harm: each is refused, and quickly."""

from __future__ import annotations

import stat
import struct
import time
from collections.abc import Callable

import pytest

from minidock.drivers.erofs_format import DIRENT, HEAD_SIZE, INODE, ROOT_NID
from minidock.drivers.erofs_reader import read
from minidock.drivers.erofs_writer import build
from minidock.drivers.nodes import Node
from minidock.errors import CorruptObjectError

TAR_SIZE = 1 << 20
# Fields of an inode, by their place in it.
LIES, XATTRS, MODE, RESERVED, SIZE, WHERE, NUMBER, UID, GID, MTIME, NSEC, LINKS, RESERVED2, RESERVED3 = range(14)


class Image:
    """An index of a few names, to be changed field by field.

    ``a`` and ``b`` are directories, ``a/f`` and ``a/g`` files, ``l`` a symbolic link, ``p`` a pipe, ``x`` a file with
    an attribute, ``w`` a directory whose names are in blocks of their own.
    """

    def __init__(self) -> None:
        root = Node(stat.S_IFDIR | 0o755)
        wide = Node(stat.S_IFDIR | 0o755)
        wide.children = {b"%03d" % number: Node(stat.S_IFREG | 0o644) for number in range(100)}
        inner = Node(stat.S_IFDIR | 0o755)
        inner.children = {
            b"f": Node(stat.S_IFREG | 0o644, size=600, offset=512),
            b"g": Node(stat.S_IFREG | 0o644),
        }
        root.children = {
            b"a": inner,
            b"b": Node(stat.S_IFDIR | 0o755),
            b"l": Node(stat.S_IFLNK | 0o777, target=b"target"),
            b"p": Node(stat.S_IFIFO | 0o644),
            b"w": wide,
            b"x": Node(stat.S_IFREG | 0o644, xattrs={"user.a": b"1", "user.b": b"2"}),
        }
        self.data = bytearray(build(root, tar_size=TAR_SIZE))

    def read(self) -> Node:
        return read(bytes(self.data), tar_size=TAR_SIZE)

    def nid(self, path: str) -> int:
        nid = ROOT_NID
        for name in filter(None, path.split("/")):
            nid = self.entries(nid)[name][0]
        return nid

    def entries(self, nid: int) -> dict[str, tuple[int, int]]:
        """The names of a directory whose content is beside its inode: each one's inode, and where its entry is."""
        fields = INODE.unpack_from(self.data, nid * 32)
        start = nid * 32 + INODE.size
        content = self.data[start : start + fields[SIZE]]
        count = DIRENT.unpack_from(content)[1] // DIRENT.size
        found = [DIRENT.unpack_from(content, number * DIRENT.size) for number in range(count)]
        ends = [entry[1] for entry in found[1:]] + [len(content)]
        return {
            content[entry[1] : end].decode(): (entry[0], start + number * DIRENT.size)
            for number, (entry, end) in enumerate(zip(found, ends, strict=True))
        }

    def set(self, path: str, field: int, value: int) -> None:
        """Change a field of the inode at ``path``."""
        start = self.nid(path) * 32
        fields = list(INODE.unpack_from(self.data, start))
        fields[field] = value
        INODE.pack_into(self.data, start, *fields)

    def get(self, path: str, field: int) -> int:
        return int(INODE.unpack_from(self.data, self.nid(path) * 32)[field])

    def point(self, directory: str, name: str, nid: int, file_type: int | None = None) -> None:
        """Make an entry lead to another inode."""
        place = self.entries(self.nid(directory))[name][1]
        _, offset, old_type = DIRENT.unpack_from(self.data, place)
        DIRENT.pack_into(self.data, place, nid, offset, old_type if file_type is None else file_type)

    def rename(self, directory: str, old: bytes, new: bytes) -> None:
        """Change names in place, wherever they stand behind a directory's inode."""
        start = self.nid(directory) * 32 + INODE.size
        end = start + self.get(directory, SIZE)
        self.data[start:end] = self.data[start:end].replace(old, new)


def test_the_image_is_good_before_it_is_changed() -> None:
    assert sorted(Image().read().children or {}) == [b"a", b"b", b"l", b"p", b"w", b"x"]


HARMFUL: dict[str, tuple[Callable[[Image], object], str]] = {
    "a directory that holds itself": (lambda i: i.point("a", "f", i.nid("a"), 2), ""),
    "a directory that holds the root": (lambda i: i.point("", "b", ROOT_NID), "two names"),
    "a directory with two names": (lambda i: i.point("", "b", i.nid("a")), "two names"),
    "a dot that leads elsewhere": (lambda i: i.point("a", ".", i.nid("b")), "dots"),
    "a parent that is not the parent": (lambda i: i.point("a", "..", i.nid("b")), "dots"),
    "a root whose parent is another": (lambda i: i.point("", "..", i.nid("b")), "dots"),
    "an entry of another type": (lambda i: i.point("", "p", i.nid("p"), 1), "another type"),
    "an entry of no type": (lambda i: i.point("", "p", i.nid("p"), 0), "another type"),
    "a second entry of another type": (lambda i: i.point("", "p", i.nid("l"), 5), "another type"),
    "an inode beyond the end": (lambda i: i.point("", "p", 1 << 40), "beyond the end"),
    "an inode whose number overflows": (lambda i: i.point("", "p", (1 << 64) - 1), "beyond the end"),
    "an inode in the superblock": (lambda i: i.point("", "p", 32), ""),
    "an inode between two others": (lambda i: i.point("", "p", i.nid("p") + 1), ""),
    "a hard link that is not counted": (lambda i: i.point("a", "g", i.nid("a/f")), "other inodes"),
    "a name with a slash": (lambda i: i.rename("a", b"...fg", b"...f/"), ""),
    "a name with a NUL": (lambda i: i.rename("a", b"...fg", b"...\0g"), "no file can have"),
    "names in another order": (lambda i: i.rename("a", b"...fg", b"...gf"), "not sorted"),
    "a name twice": (lambda i: i.rename("a", b"...fg", b"...ff"), "not sorted"),
    "no dots": (lambda i: i.rename("a", b"...fg", b"abcfg"), ""),
    "a file beyond the tar": (lambda i: i.set("a/f", WHERE, i.get("a/f", WHERE) + TAR_SIZE // 512), "outside the tar"),
    "a file in the index": (lambda i: i.set("a/f", WHERE, 2), "outside the tar"),
    "a file that is too long": (lambda i: i.set("a/f", SIZE, TAR_SIZE), "outside the tar"),
    "a file of all bytes": (lambda i: i.set("a/f", SIZE, (1 << 64) - 1), "outside the tar"),
    "an empty file with a block": (lambda i: i.set("a/g", WHERE, 9), "empty file"),
    "a file beside its inode": (lambda i: i.set("a/f", LIES, 5), "without content in the index"),
    "a compressed file": (lambda i: i.set("a/f", LIES, 3), "without content in the index"),
    "a directory that lies nowhere": (lambda i: i.set("a", LIES, 9), "unknown way"),
    "a compact inode": (lambda i: i.set("a/f", LIES, 0), "without content in the index"),
    "a pipe with content": (lambda i: i.set("p", SIZE, 1), "special file"),
    "a pipe with a device": (lambda i: i.set("p", WHERE, 1), "special file"),
    "a link without end": (lambda i: i.set("l", SIZE, 1 << 40), "too long"),
    "a link to nothing": (lambda i: i.set("l", SIZE, 0), "too long"),
    "a link beyond its block": (lambda i: i.set("l", SIZE, 511), ""),
    "a link with a block": (lambda i: i.set("l", WHERE, 3), "too long"),
    "a directory without end": (lambda i: i.set("w", SIZE, 1 << 60), ""),
    "a directory without content": (lambda i: i.set("b", SIZE, 0), ""),
    "a directory that is cut": (lambda i: i.set("w", SIZE, i.get("w", SIZE) - 1), ""),
    "a directory in the superblock": (lambda i: i.set("w", WHERE, 0), ""),
    "a directory in the inodes": (lambda i: i.set("w", WHERE, 3), ""),
    "a directory beyond the end": (lambda i: i.set("w", WHERE, len(i.data) // 512), "beyond the end"),
    "a directory that counts too few": (lambda i: i.set("", LINKS, 4), "other links"),
    "a file that counts too many": (lambda i: i.set("a/f", LINKS, 2), "other links"),
    "a file without a link": (lambda i: i.set("a/f", LINKS, 0), "other links"),
    "an inode with another number": (lambda i: i.set("a/f", NUMBER, 1), "reserved"),
    "nanoseconds": (lambda i: i.set("a/f", NSEC, 1), "reserved"),
    "a reserved field": (lambda i: i.set("a/f", RESERVED, 1), "reserved"),
    "another reserved field": (lambda i: i.set("a/f", RESERVED2, 1), "reserved"),
    "a last reserved field": (lambda i: i.set("a/f", RESERVED3, 1), "reserved"),
    "a socket": (lambda i: i.set("p", MODE, stat.S_IFSOCK), "another type"),
    "attributes that are not there": (lambda i: i.set("a/f", XATTRS, 4), ""),
    "attributes without end": (lambda i: i.set("x", XATTRS, 0xFFFF), "malformed extended"),
    "a header without attributes": (lambda i: i.set("x", XATTRS, 1), "malformed extended"),
    "an attribute less": (lambda i: i.set("x", XATTRS, i.get("x", XATTRS) - 2), ""),
}


@pytest.mark.parametrize("what", HARMFUL)
def test_what_harms_is_refused(what: str) -> None:
    change, message = HARMFUL[what]
    image = Image()
    change(image)
    with pytest.raises(CorruptObjectError, match=f"the layer's index is malformed: .*{message}"):
        image.read()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (struct.pack("<BBH", 1, 1, 1) + b"a", struct.pack("<BBH", 1, 9, 1) + b"a", "unknown kind"),
        (struct.pack("<BBH", 1, 1, 1) + b"a", struct.pack("<BBH", 0, 1, 2) + b"a", "unknown kind"),
        (struct.pack("<BBH", 1, 1, 1) + b"a", struct.pack("<BBH", 1, 1, 8) + b"a", "extended attributes"),
        (struct.pack("<BBH", 1, 1, 1) + b"a", struct.pack("<BBH", 1, 1, 0xFFFF) + b"a", "extended attributes"),
        (struct.pack("<BBH", 1, 1, 1) + b"a", struct.pack("<BBH", 1, 1, 1) + b"b", "extended attributes"),
        (struct.pack("<BBH", 1, 1, 1) + b"a", struct.pack("<BBH", 1, 1, 1) + b"c", "unsorted"),
        (struct.pack("<BBH", 1, 1, 1) + b"a", struct.pack("<BBH", 1, 1, 1) + b"\0", "unknown kind"),
    ],
)
def test_malformed_attributes_are_refused(old: bytes, new: bytes, message: str) -> None:
    image = Image()
    assert image.data.count(old) == 1
    image.data[:] = image.data.replace(old, new)
    with pytest.raises(CorruptObjectError, match=message):
        image.read()


@pytest.mark.parametrize("name", ["overlay.opaque", "overlay.redirect", "overlay.metacopy"])
def test_overlayfs_own_attributes_are_refused(name: str) -> None:
    """A redirect would show what another layer hides; an opaque mark means something on directories only."""
    root = Node(stat.S_IFDIR | 0o755)
    size = len(name)
    root.children = {b"f": Node(stat.S_IFREG | 0o644, xattrs={"trusted." + "n" * size: b"y"})}
    image = build(root, tar_size=0).replace(b"n" * size, name.encode())
    with pytest.raises(CorruptObjectError, match=r"not a layer's|not a directory"):
        read(image, tar_size=0)


@pytest.mark.parametrize("size", [0, 1, 512, HEAD_SIZE - 512, HEAD_SIZE])
def test_what_is_too_small_is_refused(size: int) -> None:
    with pytest.raises(CorruptObjectError):
        read(bytes(Image().data[:size]), tar_size=TAR_SIZE)


def test_another_tars_index_is_refused() -> None:
    with pytest.raises(CorruptObjectError, match="superblock"):
        read(bytes(Image().data), tar_size=TAR_SIZE + 512)


def test_what_lies_between_is_refused() -> None:
    """An image could smuggle something that is none of the tree."""
    image = Image()
    data = bytes(image.data)
    hole = data.rfind(bytes(64), HEAD_SIZE, image.get("w", WHERE) * 512)
    image.data[hole + 63] = 1
    with pytest.raises(CorruptObjectError, match=r"in use|no file can have|reserved"):
        image.read()


def test_directories_that_share_their_blocks_are_refused_before_they_cost_time() -> None:
    """A thousand directories over the same hundred thousand names would be a hundred million entries."""
    root = Node(stat.S_IFDIR | 0o755)
    big = Node(stat.S_IFDIR | 0o755)
    big.children = {b"!%06d" % number: Node(stat.S_IFREG | 0o644) for number in range(20_000)}
    root.children = {b"big": big}
    for number in range(1000):
        root.children[b"d%04d" % number] = Node(stat.S_IFDIR | 0o755)
    data = bytearray(build(root, tar_size=0))
    good = read(bytes(data), tar_size=0)
    assert len(good.children or {}) == 1001
    pattern = struct.pack("<HHHH", 5, 0, stat.S_IFDIR | 0o755, 0)
    positions = [place for place in range(HEAD_SIZE, len(data) - 64, 32) if data[place : place + 8] == pattern]
    large = max(positions, key=lambda place: INODE.unpack_from(data, place)[SIZE])
    size, where = INODE.unpack_from(data, large)[SIZE : WHERE + 1]
    for place in positions:
        fields = list(INODE.unpack_from(data, place))
        fields[SIZE] = size // 512 * 512 + fields[SIZE]
        fields[WHERE] = where
        if place not in {large, ROOT_NID * 32}:
            INODE.pack_into(data, place, *fields)
    begin = time.monotonic()
    with pytest.raises(CorruptObjectError):
        read(bytes(data), tar_size=0)
    assert time.monotonic() - begin < 5
