"""Writer and strict reader of indexes against each other: any tree comes back, anything else is refused."""

from __future__ import annotations

import os
import random
import stat
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidock.drivers.erofs_reader import read
from minidock.drivers.erofs_writer import build
from minidock.drivers.nodes import Node, whiteout
from minidock.errors import CorruptObjectError

TAR_SIZE = 1 << 24
_UUID = range(1024 + 48, 1024 + 64)

_names = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.binary(min_size=250, max_size=255),
    st.sampled_from([b"!", b"-", b"...", b".a", b"..a", b".-", b"\xff"]),
).filter(lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."})
_xattrs = st.one_of(
    st.just({}),
    st.dictionaries(
        st.one_of(
            st.sampled_from(["security.capability", "system.posix_acl_access", "system.posix_acl_default"]),
            st.text("abc.é\udc80", min_size=1, max_size=8).map("user.".__add__),
            st.text("abc", min_size=1, max_size=220).map("trusted.".__add__),
        ),
        st.binary(max_size=600),
        max_size=4,
    ),
)
_targets = st.integers(0, 4094).flatmap(lambda size: st.just(b"t" * size + b"x"))
_owners = st.sampled_from([0, 33, 65_536, 0xFFFF_FFFF])
_times = st.sampled_from([0, 1, -1, -(1 << 31), 1_700_000_000, 1 << 34])


@st.composite
def _leaves(draw: Any) -> Node:
    kind = draw(st.sampled_from([stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, 0]))
    if not kind:
        return whiteout()
    size = draw(st.sampled_from([0, 1, 511, 512, 513, 100_000])) if kind == stat.S_IFREG else 0
    device = kind in {stat.S_IFCHR, stat.S_IFBLK}
    return Node(
        kind | draw(st.integers(0, 0o7777)),
        draw(_owners),
        draw(_owners),
        draw(_times),
        size=size,
        offset=draw(st.integers(0, 1000)) * 512 if size else 0,
        target=draw(_targets) if kind == stat.S_IFLNK else b"",
        rdev=os.makedev(draw(st.integers(0, 0xFFF)), draw(st.integers(0, 0xFFFFF))) if device else 0,
        xattrs=draw(_xattrs),
    )


@st.composite
def trees(draw: Any) -> Node:
    """A tree with every kind of inode, in which files have several names."""
    root = Node(stat.S_IFDIR | draw(st.integers(0, 0o7777)), draw(_owners), mtime=draw(_times), xattrs=draw(_xattrs))
    root.opaque = draw(st.booleans())
    directories = [root]
    leaves: list[Node] = []
    for name in draw(st.lists(_names, max_size=40)):
        children = draw(st.sampled_from(directories)).children
        assert children is not None
        choice = draw(st.integers(0, 3))
        if name in children:
            continue
        if choice == 0:
            children[name] = Node(stat.S_IFDIR | 0o755, xattrs=draw(_xattrs))
            children[name].opaque = draw(st.booleans())
            directories.append(children[name])
        elif choice == 1 and leaves:
            children[name] = draw(st.sampled_from(leaves))
        else:
            children[name] = draw(_leaves())
            leaves.append(children[name])
    return root


def described(root: Node) -> dict[bytes, tuple[Any, ...]]:
    """All that a tree says, by path; of an inode with several names the first one stands for it."""
    found: dict[bytes, tuple[Any, ...]] = {}
    first: dict[Node, bytes] = {}
    pending = [(b"", root)]
    while pending:
        path, node = pending.pop()
        found[path] = (
            (node.mode, node.uid, node.gid, node.mtime, node.size, node.offset, node.target, node.rdev),
            dict(node.xattrs),
            node.opaque,
            first.setdefault(node, path),
        )
        if node.children is not None:
            pending += sorted((path + b"/" + name, child) for name, child in node.children.items())
    return found


def small_tree() -> Node:
    """A little of everything, in an image of a few blocks."""
    root = Node(stat.S_IFDIR | 0o755, mtime=7, xattrs={"user.k": b"value"})
    assert root.children is not None
    children = root.children
    children[b"file"] = children[b"link"] = Node(stat.S_IFREG | 0o4755, 1, 2, 3, size=700, offset=1024)
    children[b"empty"] = Node(stat.S_IFREG | 0o600, xattrs={"trusted.t": b"", "security.capability": b"c" * 20})
    children[b"device"] = Node(stat.S_IFBLK | 0o600, rdev=os.makedev(259, 70_000))
    children[b"pipe"] = Node(stat.S_IFIFO | 0o600)
    children[b"gone"] = whiteout()
    children[b"short"] = Node(stat.S_IFLNK | 0o777, target=b"file")
    children[b"long"] = Node(stat.S_IFLNK | 0o777, target=b"l" * 600)
    children[b"directory"] = large = Node(stat.S_IFDIR | 0o700)
    large.opaque = True
    assert large.children is not None
    for number in range(50):
        large.children[b"%d" % number] = children[b"file"] if number % 9 == 0 else Node(stat.S_IFREG, number)
    return root


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
def test_any_tree_comes_back(root: Node) -> None:
    image = build(root, tar_size=TAR_SIZE)
    again = read(image, tar_size=TAR_SIZE)
    assert described(again) == described(root)
    assert build(again, tar_size=TAR_SIZE) == image


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 18, 19, 20, 21, 400])
@pytest.mark.parametrize("length", [1, 7, 200, 255])
def test_directories_of_any_size(count: int, length: int) -> None:
    root = Node(stat.S_IFDIR | 0o755)
    assert root.children is not None
    for number in range(count):
        root.children[(b"%d" % number).rjust(length, b"n")] = Node(stat.S_IFREG | 0o644)
    assert described(read(build(root, tar_size=0), tar_size=0)) == described(root)


@pytest.mark.parametrize("attributes", [0, 1, 300, 355, 356, 357, 400, 60_000])
def test_what_follows_an_inode_fits_its_block_or_goes_elsewhere(attributes: int) -> None:
    root = Node(stat.S_IFDIR | 0o755, xattrs={"user.a": bytes(attributes)} if attributes else {})
    assert root.children is not None
    for size in (*range(340, 520, 4), 1024, 4095):
        xattrs = {"user.a": bytes(attributes)} if attributes else {}
        root.children[b"%d" % size] = Node(stat.S_IFLNK | 0o777, target=b"t" * size, xattrs=xattrs)
    assert described(read(build(root, tar_size=0), tar_size=0)) == described(root)


def test_a_hundred_thousand_entries_in_one_directory() -> None:
    root = Node(stat.S_IFDIR | 0o755)
    root.children = {
        b"entry-%d" % number: Node(stat.S_IFREG | 0o644, size=10, offset=number * 512) for number in range(100_000)
    }
    image = build(root, tar_size=100_000 * 512)
    again = read(image, tar_size=100_000 * 512)
    assert described(again) == described(root)


def test_a_tree_ten_thousand_levels_deep() -> None:
    root = here = Node(stat.S_IFDIR | 0o755)
    for _ in range(10_000):
        assert here.children is not None
        here.children[b"d"] = here = Node(stat.S_IFDIR | 0o755)
    image = build(root, tar_size=0)
    again: Node | None = read(image, tar_size=0)
    depth = -1
    while again is not None:
        depth += 1
        again = (again.children or {}).get(b"d")
    assert depth == 10_000


def _outcome(image: bytes) -> dict[bytes, tuple[Any, ...]] | None:
    try:
        return described(read(image, tar_size=TAR_SIZE))
    except CorruptObjectError:
        return None


@pytest.mark.parametrize("bits", [0x01, 0x80, 0xFF])
def test_no_byte_of_an_index_is_left_unread(bits: int) -> None:
    """A changed byte is refused, or it changes the tree; the UUID alone is free."""
    image = build(small_tree(), tar_size=TAR_SIZE)
    expected = described(read(image, tar_size=TAR_SIZE))
    for position in range(len(image)):
        changed = bytearray(image)
        changed[position] ^= bits
        same = _outcome(bytes(changed)) == expected
        assert same == (position in _UUID), f"byte {position}"


@pytest.mark.parametrize("seed", range(8))
def test_damaged_indexes_give_an_error_or_a_tree(seed: int) -> None:
    """Whatever is changed, inserted, cut or copied: what comes back is a tree that the writer could have written."""
    rnd = random.Random(seed)
    image = build(small_tree(), tar_size=TAR_SIZE)
    begin = time.monotonic()
    for _ in range(1500):
        changed = bytearray(image)
        for _ in range(rnd.choice([1, 1, 2, 8])):
            _damage(changed, rnd)
        try:
            tree = read(bytes(changed), tar_size=TAR_SIZE)
        except CorruptObjectError:
            continue
        again = read(build(tree, tar_size=TAR_SIZE), tar_size=TAR_SIZE)
        assert described(again) == described(tree)
    assert time.monotonic() - begin < 60


def _damage(image: bytearray, rnd: random.Random) -> None:
    position = rnd.randrange(1024, len(image)) if len(image) > 1024 else 0
    word = position & -4
    kind = rnd.randrange(5)
    if kind == 0:
        image[position : position + 1] = rnd.randbytes(1)
    elif kind == 1:
        image[position:position] = rnd.randbytes(rnd.choice([1, 32, 512]))
    elif kind == 2:
        del image[position : position + rnd.choice([1, 32, 512])]
    elif kind == 3:
        source = rnd.randrange(len(image) or 1) & -4
        size = rnd.choice([4, 12, 64, 512])
        image[word : word + size] = image[source : source + size]
    else:
        value = rnd.choice([0, 1, 2, 48, 50, 1 << 31, 0xFFFF_FFFF])
        image[word : word + 4] = value.to_bytes(4, "little")


def test_a_cut_index_is_refused_wherever_it_is_cut() -> None:
    image = build(small_tree(), tar_size=TAR_SIZE)
    for size in range(0, len(image), 7):
        assert _outcome(image[:size]) is None
    assert _outcome(image + bytes(512)) is None
    assert _outcome(image + b"x") is None
