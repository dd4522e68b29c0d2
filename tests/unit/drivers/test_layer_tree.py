"""A layer's tree in memory. That it is what unpacking makes on disk is shown by the conformance suite, as root."""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.drivers.layer_tree import LayerTree, scan
from minidock.drivers.nodes import InexpressibleError, Node
from minidock.drivers.tar_format import DIRECTORY, LINK, REGULAR, SYMLINK, Entry
from minidock.drivers.tar_reader import TarReader
from minidock.drivers.tar_writer import TarWriter
from minidock.errors import ArchiveError

Below = Callable[[], int]


@pytest.fixture
def below(tmp_path: Path) -> Iterator[Below]:
    """The layers beneath: d/old, d/e, the file f, the link l to /d."""
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "old").touch()
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("/d")
    os.chmod(tmp_path / "d", 0o750)
    os.utime(tmp_path / "d", (5, 5.5))
    os.utime(tmp_path, (7, 7))
    fd = os.open(tmp_path, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    yield lambda: fd
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def never() -> int:
    raise AssertionError("nothing beneath is needed")


def built(below: Below | None, *entries: Entry) -> LayerTree:
    tree = LayerTree(below)
    for number, entry in enumerate(entries):
        tree.add(entry, 512 * number)
    assert tree.finish() is tree.root
    return tree


def paths(node: Node, path: str = "") -> dict[str, Node]:
    found = {path: node}
    for name, child in (node.children or {}).items():
        found |= paths(child, f"{path}/{os.fsdecode(name)}" if path else os.fsdecode(name))
    return found


def directory(name: str, **fields: Any) -> Entry:
    return Entry(name, DIRECTORY, 0o755, **fields)


def marks(tree: LayerTree) -> set[str]:
    """The deletions, as "-PATH", and what is opaque, as "=PATH"."""
    found = set()
    for path, node in paths(tree.root).items():
        if stat.S_ISCHR(node.mode):
            assert (node.mode, node.rdev) == (stat.S_IFCHR, 0)
            found.add(f"-{path}")
        elif node.opaque:
            found.add(f"={path}")
    return found


def test_entries_become_nodes() -> None:
    tree = built(
        never,
        Entry("", DIRECTORY, 0o1755, 1, 2, mtime=3),
        directory("d"),
        Entry("d/é", REGULAR, 0o4711, 5, 6, 1000, 7, xattrs={"user.k": b"v"}),
        Entry("d/empty"),
        Entry("s", SYMLINK, 0o600, linkname="d/é"),
        Entry("h", LINK, linkname="d/é"),
    )
    nodes = paths(tree.root)
    assert list(nodes) == ["", "d", "d/é", "d/empty", "s", "h"]
    root, file = nodes[""], nodes["d/é"]
    assert (root.mode, root.uid, root.gid, root.mtime, root.opaque) == (stat.S_IFDIR | 0o1755, 1, 2, 3, False)
    assert (file.mode, file.uid, file.gid, file.mtime) == (stat.S_IFREG | 0o4711, 5, 6, 7)
    assert (file.size, file.offset, file.xattrs) == (1000, 1024, {"user.k": b"v"})
    assert (nodes["d/empty"].size, nodes["d/empty"].offset) == (0, 0)
    assert (nodes["s"].mode, nodes["s"].target) == (stat.S_IFLNK | 0o777, "d/é".encode())
    assert nodes["h"] is file
    assert tree.self_contained


def test_a_whole_tar() -> None:
    out = io.BytesIO()
    writer = TarWriter(out)
    writer.add(directory(""))
    offsets = [writer.add_bytes(Entry(name, size=3), b"abc") for name in ("a", "n" * 200)]
    writer.finish()
    tree = scan(TarReader(io.BytesIO(out.getvalue())), never)
    assert [node.offset for node in (tree.root.children or {}).values()] == offsets
    assert all(out.getvalue()[offset : offset + 3] == b"abc" for offset in offsets)


def test_missing_parents_are_as_beneath(below: Below) -> None:
    tree = built(below, Entry("l/x"), Entry("d/e/y"), Entry("new/z"))
    nodes = paths(tree.root)
    assert list(nodes) == ["", "d", "d/x", "d/e", "d/e/y", "new", "new/z"]
    assert (nodes["d"].mode & 0o7777, nodes["d"].mtime, nodes[""].mtime) == (0o750, 5, 7)
    assert (nodes["new"].mode & 0o7777, nodes["new"].mtime) == (0o755, 0)
    assert not tree.self_contained


def test_only_a_layer_with_its_root_and_all_parents_is_self_contained(below: Below) -> None:
    root, d = directory(""), directory("d")
    assert built(below, root, d, Entry("d/x")).self_contained
    assert not built(below, root, Entry("d/x")).self_contained
    assert not built(below, d, Entry("d/x")).self_contained
    assert not built(None, d).self_contained
    assert not built(below, root, Entry(".wh.f")).self_contained
    assert built(below, root, Entry(".wh.f"), Entry("f")).self_contained


def test_links_stay_inside() -> None:
    way = (directory("a/b"), Entry("a/b/up", SYMLINK, linkname="../../../a"), Entry("a/b/top", SYMLINK, linkname="/c"))
    tree = built(None, *way, Entry("a/b/up/x"), Entry("a/b/top/y"), Entry("a/b/top/z"))
    assert sorted(paths(tree.root)) == ["", "a", "a/b", "a/b/top", "a/b/up", "a/x", "c", "c/y", "c/z"]


def test_without_layers_beneath_parents_and_root_are_plain() -> None:
    tree = built(None, Entry("a/x"))
    nodes = paths(tree.root)
    assert [node.mode & 0o7777 for node in nodes.values()] == [0o755, 0o755, 0o644]
    assert not tree.self_contained


def test_where_a_link_beneath_leads_may_change(below: Below) -> None:
    assert list(paths(built(below, Entry("l/x"), directory("l"), Entry("l/y")).root)) == ["", "d", "d/x", "l", "l/y"]
    tree = built(below, Entry("l/x"), Entry(".wh.l"), Entry("l/y"))
    assert list(paths(tree.root)) == ["", "d", "d/x", "l", "l/y"]
    assert marks(tree) == {"=l"}
    with pytest.raises(ArchiveError, match="no directory"):
        built(below, Entry("l/x"), Entry("l"), Entry("l/y"))


def test_deletions_need_a_victim(below: Below) -> None:
    tree = built(below, Entry("l/.wh.old"), Entry(".wh.f"), Entry(".wh.none"), Entry("d/.wh.none"))
    assert marks(tree) == {"-d/old", "-f"}
    root = directory("")
    assert marks(built(below, root, Entry(".wh.f"), Entry("f"))) == set()
    assert marks(built(below, root, Entry("f"), Entry(".wh.f"))) == set()
    assert marks(built(None, root, Entry(".wh.f"))) == set()
    assert not built(None, root, Entry(".wh.f")).self_contained


def test_what_hides_a_directory_beneath(below: Below) -> None:
    root, d = directory(""), directory("d")
    assert marks(built(below, root, d, Entry("d/.wh..wh..opq"), Entry("d/.wh.old"))) == {"=d"}
    assert marks(built(below, root, Entry(".wh.d"), d)) == {"=d"}
    assert marks(built(below, root, d, Entry(".wh.d"))) == {"=d"}
    assert marks(built(below, root, Entry("d"), d)) == {"=d"}
    assert marks(built(below, root, d, Entry("d/.wh..wh..opq"), Entry("d"))) == set()
    assert marks(built(below, root, d, Entry(".wh..wh.aufs"), Entry(".wh..wh.plnk/1"))) == set()


def test_a_root_hides_by_name(below: Below) -> None:
    tree = built(below, directory(""), Entry(".wh..wh..opq"), directory("d"), Entry("f"))
    assert marks(tree) == {"=d", "-l"}
    assert not tree.self_contained
    assert marks(built(None, directory(""), Entry(".wh..wh..opq"))) == {"="}


def test_a_layer_whose_root_hides_everything_is_not_the_same_above_others() -> None:
    assert not built(None, directory(""), Entry(".wh..wh..opq")).self_contained


def test_the_last_of_several_wins() -> None:
    tree = built(never, directory(""), directory("x"), Entry("x/y"), directory("x/z"), directory("x", uid=9))
    assert paths(tree.root)["x"].uid == 9
    assert list(paths(tree.root)) == ["", "x", "x/y", "x/z"]
    tree = built(None, directory(""), directory("x/y"), Entry("x"), directory("x"), Entry("x/y/z"))
    assert list(paths(tree.root)) == ["", "x", "x/y", "x/y/z"]
    tree = built(never, directory(""), Entry("a", uid=1), Entry("b", LINK, linkname="a"), Entry("a", uid=2))
    assert [paths(tree.root)[name].uid for name in "ab"] == [2, 1]


def test_a_replaced_directorys_attributes_do_not_count() -> None:
    bad = directory("x", xattrs={"security.capability": b"bad"})
    with pytest.raises(ArchiveError, match="file capability of 'x'"):
        built(never, directory(""), bad)
    built(never, directory(""), bad, directory("x"))
    built(never, directory(""), bad, Entry("x"))


def test_what_is_refused(below: Below) -> None:
    for match, entries in (
        ("too many symbolic", [Entry("a", SYMLINK, linkname="a"), Entry("a/x")]),
        ("is missing", [Entry("h", LINK, linkname="none")]),
        ("is a directory", [Entry("h", LINK, linkname="d")]),
        ("points to itself", [Entry("d/h", LINK, linkname="l/h")]),
        ("meaningless whiteout", [Entry(".wh.")]),
        ("0:0", [Entry("x", b"3")]),
        ("no directory", [Entry("f/x")]),
    ):
        with pytest.raises(ArchiveError, match=match):
            built(below, *entries)


def test_what_has_to_be_unpacked(below: Below) -> None:
    for match, entries in (
        ("holes", [Entry("x", segments=((0, 1),))]),
        ("earlier layer", [Entry("h", LINK, linkname="l/old")]),
        ("device number", [Entry("x", b"4", major=1 << 12)]),
        ("name that is too long", [Entry("s", SYMLINK, linkname="n" * 256), Entry("s/x")]),
        ("too long for the kernel", [directory("d/" * 1950), Entry("s", SYMLINK, linkname="d/" * 1950), Entry("s/x")]),
        ("on the way", [Entry("f"), Entry("w", SYMLINK, linkname="n/.."), Entry("n", LINK, linkname="w/f")]),
    ):
        with pytest.raises(InexpressibleError, match=match):
            built(below, *entries)


def test_finishing_again_changes_nothing(below: Below) -> None:
    tree = built(below, Entry(".wh..wh..opq"), directory("d"), Entry("f"))
    before = marks(tree)
    assert tree.finish() is tree.root
    assert marks(tree) == before == {"=d", "-l"}


def test_time_grows_with_the_layer_only(below: Below) -> None:
    """GHSA-rp3h-jf77-q9p4: many opaque marks and parents; and directories that come and go."""

    def seconds(count: int) -> float:
        start = time.process_time()
        tree = LayerTree(below)
        for number in range(count):
            tree.add(Entry(f"p{number}/q/r/x"), 0)
            tree.add(Entry(f"p{number}/q/.wh..wh..opq"), 0)
            tree.add(Entry("d/flip", DIRECTORY), 0)
            tree.add(Entry("d/flip"), 0)
        tree.finish()
        return time.process_time() - start

    small, large = seconds(1000), seconds(8000)
    assert large < 8 * small * 3 + 1
