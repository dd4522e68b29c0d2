"""The writer of indexes: the same tree gives the same bytes, and what the format cannot hold is refused by name."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from typing import Any

import pytest

from minidock.drivers.erofs_writer import build
from minidock.drivers.nodes import InexpressibleError, Node


def _directory(**children: Node) -> Node:
    root = Node(stat.S_IFDIR | 0o755)
    root.children = {name.encode(): node for name, node in children.items()}
    return root


def _file(**fields: int) -> Node:
    return Node(stat.S_IFREG | 0o644, **fields)  # type: ignore[arg-type]


def _with_xattr(name: str, value: bytes = b"v") -> Node:
    return _directory(f=Node(stat.S_IFREG | 0o644, xattrs={name: value}))


def _twice() -> Node:
    inner = _directory()
    return _directory(a=inner, b=inner)


def _in_itself() -> Node:
    root = _directory()
    root.children = {b"a": root}
    return root


def _named(name: bytes) -> Node:
    root = _directory()
    root.children = {b"a": _file(), name: _file(), b"z": _file()}
    return root


def _opaque_file() -> Node:
    node = _file()
    node.opaque = True
    return _directory(f=node)


def _many_xattrs() -> Node:
    return _directory(f=Node(stat.S_IFREG | 0o644, xattrs={f"user.{n}": bytes(65_000) for n in range(5)}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_file, "its root is not a directory"),
        (lambda: _directory(f=_file(size=1, offset=100)), "byte 100, not a multiple of 512"),
        (lambda: _directory(f=_file(size=1, offset=-512)), "beyond the tar's end"),
        (lambda: _directory(f=_file(size=1, offset=8192)), "beyond the tar's end"),
        (lambda: _directory(f=_file(size=513, offset=8192 - 512)), "beyond the tar's end"),
        (lambda: _directory(f=_file(size=-1)), "beyond the tar's end|out of range"),
        (lambda: _directory(f=_file(uid=-1)), "out of range"),
        (lambda: _directory(f=_file(gid=1 << 32)), "out of range"),
        (lambda: _directory(f=_file(mtime=1 << 63)), "out of range"),
        (lambda: _directory(f=Node(0o644)), "impossible mode 644"),
        (lambda: _directory(f=Node(stat.S_IFSOCK | 0o644)), "impossible mode"),
        (lambda: _directory(f=Node(1 << 20)), "out of range"),
        (lambda: _directory(f=Node(stat.S_IFLNK | 0o777)), "symbolic link"),
        (lambda: _directory(f=Node(stat.S_IFLNK | 0o777, target=b"t" * 4096)), "symbolic link"),
        (lambda: _directory(f=Node(stat.S_IFLNK | 0o777, target=b"a\0b")), "symbolic link"),
        (lambda: _directory(f=Node(stat.S_IFCHR, rdev=os.makedev(4096, 0))), "device 4096:0"),
        (lambda: _directory(f=Node(stat.S_IFCHR, rdev=os.makedev(0, 1 << 20))), "device 0:1048576"),
        (_twice, "two names"),
        (_in_itself, "two names"),
        (_opaque_file, "impossible mode"),
        (lambda: _named(b""), "a name that no file can have"),
        (lambda: _named(b"."), "a name that no file can have"),
        (lambda: _named(b".."), "a name that no file can have"),
        (lambda: _named(b"b/c"), "a name that no file can have"),
        (lambda: _named(b"b\0"), "a name that no file can have"),
        (lambda: _named(b"n" * 256), "a name longer than 255 bytes"),
        (lambda: _with_xattr("btrfs.compression"), "'btrfs.compression' of an unknown kind"),
        (lambda: _with_xattr("system.nfs4_acl"), "unknown kind"),
        (lambda: _with_xattr("user."), "unknown kind"),
        (lambda: _with_xattr("user"), "unknown kind"),
        (lambda: _with_xattr("user." + "n" * 256), "oversized"),
        (lambda: _with_xattr("user.n", bytes(65_536)), "oversized"),
        (lambda: _with_xattr("trusted.overlay.opaque", b"y"), "not a layer's"),
        (_many_xattrs, "too many extended attributes"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(make: Callable[[], Node], message: str) -> None:
    with pytest.raises(InexpressibleError, match=message):
        build(make(), tar_size=8192)


def test_more_blocks_than_addresses_are_refused() -> None:
    root = _directory(f=_file(size=1 << 40))
    assert build(root, tar_size=(0xFFFFFFFF - 4) * 512)
    with pytest.raises(InexpressibleError, match="more blocks"):
        build(root, tar_size=(0xFFFFFFFF - 3) * 512)


def test_a_tar_may_end_inside_a_block_that_no_file_needs() -> None:
    root = _directory(f=_file(size=512, offset=512))
    assert build(root, tar_size=1024) == build(root, tar_size=1500)
    with pytest.raises(InexpressibleError, match="beyond the tar's end"):
        build(root, tar_size=1023)


def test_the_same_tree_gives_the_same_bytes_in_whatever_order_it_was_filled() -> None:
    def tree(seed: int) -> Node:
        rnd = random.Random(seed)
        shared = _file(size=5, offset=512)
        root = Node(stat.S_IFDIR | 0o755, xattrs=_shuffled({"user.a": b"1", "user.b": b"2"}, rnd))
        pending = [(root, 0)]
        for node, depth in pending:
            children: dict[bytes, Node] = {b"shared%d" % depth: shared}
            for number in range(30):
                directory = depth < 2 and number % 10 == 0
                child = Node(stat.S_IFDIR) if directory else _file(uid=number)
                children[b"%d" % number] = child
                if directory:
                    pending.append((child, depth + 1))
            node.children = _shuffled(children, rnd)
        return root

    images = {build(tree(seed), tar_size=8192) for seed in range(5)}
    assert len(images) == 1
    assert len(images.pop()) % 512 == 0


def _shuffled(mapping: dict[Any, Any], rnd: random.Random) -> dict[Any, Any]:
    items = list(mapping.items())
    rnd.shuffle(items)
    return dict(items)


def test_an_image_of_ten_thousand_files_takes_96_bytes_for_each_and_its_name() -> None:
    root = _directory()
    root.children = {b"%05d" % number: _file(size=1, offset=512) for number in range(10_000)}
    assert len(build(root, tar_size=8192)) < 10_000 * 96
