"""A layer's tree in memory is what unpacking its tar makes on disk: node for inode, mark for mark, error for error."""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from minidock.drivers import trees
from minidock.drivers.layer_tree import LayerTree, scan
from minidock.drivers.nodes import InexpressibleError, Node
from minidock.drivers.tar_format import (
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    FIFO,
    LINK,
    REGULAR,
    SYMLINK,
    Entry,
)
from minidock.drivers.tar_reader import TarReader
from minidock.drivers.tar_writer import TarWriter
from minidock.drivers.unpack import Unpacked, unpack_layer, write_marks
from minidock.errors import ArchiveError
from minidock.kernel.overlay import overlay

Tree = dict[str, tuple[Any, ...]]
Layer = Sequence[tuple[Entry, bytes]]

OPAQUE_XATTR = "trusted.overlay.opaque"
REASONS = (
    "is stored with holes",
    "is a hard link into an earlier layer",
    "has an ACL that the kernel would refuse or change",
    "has a file capability that the kernel would convert",
    "has an extended attribute",
    "has the device number 4096:0",
    "leads through a name that is too long",
    "leads to one that is too long for the kernel",
    "is on the way to its own target",
)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="layers have owners, devices and mounts: the suite needs root"
)


def tar_of(layer: Layer) -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out)
    for entry, data in layer:
        writer.add_bytes(entry._replace(size=len(data)), data) if entry.type == REGULAR else writer.add(entry)
    writer.finish()
    return out.getvalue()


def on_disk(root: str) -> Tree:
    """An unpacked tree as a value, by path."""
    groups: dict[int, str] = {}
    found: Tree = {}
    pending = [""]
    while pending:
        path = pending.pop()
        full = f"{root}/{path}" if path else f"{root}/."
        status = os.lstat(full)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFCHR and status.st_rdev == 0:
            found[path] = ("whiteout",)
            continue
        content: object = b""
        if kind == stat.S_IFREG:
            content = Path(full).read_bytes()
        elif kind == stat.S_IFLNK:
            content = os.fsencode(os.readlink(full))
        elif kind == stat.S_IFDIR:
            pending += [f"{path}/{name}" if path else name for name in sorted(os.listdir(full), reverse=True)]
        names = os.listxattr(full, follow_symlinks=False)
        xattrs = {name: os.getxattr(full, name, follow_symlinks=False) for name in names}
        opaque = xattrs.pop(OPAQUE_XATTR, b"") == b"y"
        group = groups.setdefault(status.st_ino, path) if kind != stat.S_IFDIR and status.st_nlink > 1 else ""
        rdev = status.st_rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0
        owner = (status.st_uid, status.st_gid)
        found[path] = (oct(status.st_mode), owner, status.st_mtime_ns / 1e9, rdev, content, xattrs, opaque, group)
    return found


def in_memory(root: Node, tar: bytes) -> Tree:
    """The same of a tree of nodes."""
    names: dict[int, list[str]] = {}
    flat: dict[str, Node] = {}
    pending = [("", root)]
    while pending:
        path, node = pending.pop()
        flat[path] = node
        names.setdefault(id(node), []).append(path)
        for name in sorted(node.children or (), reverse=True):
            assert node.children is not None
            text = os.fsdecode(name)
            pending.append((f"{path}/{text}" if path else text, node.children[name]))
    found: Tree = {}
    for path, node in flat.items():
        if stat.S_ISCHR(node.mode) and node.rdev == 0:
            found[path] = ("whiteout",)
            continue
        assert (node.children is not None) == stat.S_ISDIR(node.mode)
        assert stat.S_ISREG(node.mode) or node.size == node.offset == 0
        assert node.offset % 512 == 0
        content = tar[node.offset : node.offset + node.size] if stat.S_ISREG(node.mode) else node.target
        group = names[id(node)][0] if len(names[id(node)]) > 1 else ""
        owner = (node.uid, node.gid)
        found[path] = (oct(node.mode), owner, node.mtime, node.rdev, content, dict(node.xattrs), node.opaque, group)
    return found


class Bench:
    """Unpacks layers one above the other and makes each one's tree in memory beside it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lowers: list[str] = []
        self._count = 0

    def reset(self) -> None:
        with trees.opened(self._folder) as fd:
            trees.clear(fd)
        self._lowers.clear()

    def tame(self, layer: Layer) -> Layer:
        """The layer without its first entry that makes an error: what came after it counts, too."""
        with self._below() as below:
            tree = LayerTree(below)
            for number, (entry, _) in enumerate(layer):
                if _outcome(lambda entry=entry: tree.add(entry, 0)) is not None:  # type: ignore[misc]
                    return (*layer[:number], *layer[number + 1 :])
        return [(entry._replace(xattrs={}), data) for entry, data in layer]

    @contextmanager
    def _below(self) -> Iterator[Callable[[], int] | None]:
        if not self._lowers:
            yield None
            return
        fd = overlay(self._lowers)
        try:
            yield lambda: fd
        finally:
            os.close(fd)

    def compare(self, layer: Layer, *, on_top: bool = True) -> str:
        """What came of it: "equal", "refused" by both, or "inexpressible". The unpacked layer lies ``on_top`` then."""
        return self.compare_tar(tar_of(layer), on_top=on_top)

    def compare_tar(self, tar: bytes, *, on_top: bool = True) -> str:
        """As ``compare``, with the layer's tar."""
        tree = f"{self._folder}/{self._count}"
        self._count += 1
        os.mkdir(tree, 0o700)
        with self._below() as below:
            made = _outcome(lambda: scan(TarReader(io.BytesIO(tar)), below))
            unpacked = _outcome(lambda: _unpacked(tar, tree, below))
        if isinstance(unpacked, Unpacked) and on_top:
            self._lowers.insert(0, tree)
        if isinstance(made, InexpressibleError):
            assert any(reason in str(made) for reason in REASONS), made
            return "inexpressible"
        if isinstance(made, ArchiveError):
            assert (type(unpacked), str(unpacked)) == (ArchiveError, str(made))
            return "refused"
        assert isinstance(made, LayerTree), made
        assert isinstance(unpacked, Unpacked), unpacked
        assert in_memory(made.root, tar) == on_disk(tree)
        assert made.self_contained == unpacked.self_contained
        return "equal"


def _outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except (ArchiveError, InexpressibleError, OSError) as error:
        return error


def _unpacked(tar: bytes, tree: str, below: Callable[[], int] | None) -> Unpacked:
    with trees.opened(tree) as fd:
        before = len(os.listdir("/proc/self/fd"))
        try:
            unpacked = unpack_layer(TarReader(io.BytesIO(tar)), fd, below)
            write_marks(unpacked, fd)
            return unpacked
        finally:
            assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(str(tmp_path))
    yield made
    made.reset()


def acl(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFF_FFFF
# u::rw- u:5:rw- g::r-- m::rw- o::r--
EXTENDED = acl((1, 6, NOBODY), (2, 6, 5), (4, 4, NOBODY), (16, 6, NOBODY), (32, 4, NOBODY))
MINIMAL = acl((1, 6, NOBODY), (4, 6, NOBODY), (32, 4, NOBODY))
CAPABILITY = struct.pack("<5I", 0x02000001, 1, 0, 0, 0)
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"

XATTRS: list[dict[str, bytes]] = [
    {"user.k": b"v", "trusted.k": b""},
    {"security.capability": CAPABILITY, "security.other": b"x"},
    {"trusted.overlay.opaque": b"y", "user.overlay.whiteout": b"y", "com.apple.x": b"x", "security.selinux": b"x"},
    {"user.": b"x", "trusted.": b"x", "security.": b"x", "system.foo": b"x", "user.\udcff": b"x"},
    {ACCESS: EXTENDED},
    {DEFAULT: MINIMAL},
    {ACCESS: EXTENDED, DEFAULT: EXTENDED},
]
BAD_CAPABILITIES = [{"security.capability": value} for value in (b"", b"short", CAPABILITY + bytes(1))]
HARD_XATTRS: list[dict[str, bytes]] = [
    {ACCESS: MINIMAL},
    {ACCESS: acl((1, 6, 0), (2, 6, 5), (4, 4, 0), (16, 6, 0), (32, 4, 0))},
    {ACCESS: acl((1, 6, NOBODY), (32, 4, NOBODY))},
    {ACCESS: acl()},
    {ACCESS: acl(version=3)},
    {ACCESS: b"short"},
    {"security.capability": struct.pack("<6I", 0x03000001, 1, 0, 0, 0, 7)},
    {"gnu.translator": b"x"},
    {"user." + "é" * 130: b"x"},
]

_NAMES = st.sampled_from(["a", "b", "c", "l"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_TARGETS = st.sampled_from(
    ["a", "b", "../b", "/c", "c/../b", "/", "..", "./a//b/", "/a/b/../../c", "l", "nowhere/x", ".wh.a", "x" * 300]
)
_MODES = st.sampled_from([0o664, 0o664, 0o755, 0o4711, 0o2770, 0o1777, 0])
_XATTRS = st.integers(0, 99).flatmap(
    lambda n: st.sampled_from(XATTRS * (n < 20) + HARD_XATTRS * (n == 20) + BAD_CAPABILITIES * (n == 21) or [{}])
)


def _entries(kind: bytes, **more: Any) -> st.SearchStrategy[tuple[Entry, bytes]]:
    return st.tuples(
        st.builds(
            Entry,
            name=more.pop("name", _PATHS),
            type=st.just(kind),
            mode=_MODES,
            uid=st.sampled_from([0, 33, 3_000_000]),
            gid=st.sampled_from([0, 44]),
            mtime=st.sampled_from([0, -5, 1_600_000_000, 1 << 33]),
            xattrs=_XATTRS,
            **more,
        ),
        st.binary(max_size=6) if kind == REGULAR else st.just(b""),
    )


_MARKS = st.one_of(
    st.tuples(_PATHS, st.just(".wh."), _NAMES).map(lambda p: f"{p[0]}/{p[1]}{p[2]}"),
    _NAMES.map(".wh.".__add__),
    _PATHS.map("{}/.wh..wh..opq".format),
    st.sampled_from([".wh..wh..opq", ".wh..wh.aufs", ".wh..wh.plnk/a", "a/.wh..wh.x"]),
)
_BAD_MARKS = st.sampled_from([".wh.", ".wh..", ".wh...", "a/.wh.", ".wh.a/b", ".wh.a/.wh..wh..opq", "a/.wh.b/c"])
_ENTRY = st.one_of(
    _entries(REGULAR),
    _entries(DIRECTORY),
    _entries(DIRECTORY),
    _entries(SYMLINK, linkname=_TARGETS),
    _entries(SYMLINK, linkname=_TARGETS),
    _entries(LINK, linkname=_PATHS),
    _entries(REGULAR, name=_MARKS),
    _entries(REGULAR, name=_MARKS),
    _entries(DIRECTORY, name=st.just("")),
    _entries(FIFO),
    _entries(CHAR_DEVICE, major=st.just(1), minor=st.sampled_from([3, 1 << 19])),
    _entries(BLOCK_DEVICE, minor=st.just(0)),
)
_RARE = st.one_of(
    _entries(REGULAR, name=_BAD_MARKS), _entries(CHAR_DEVICE), _entries(CHAR_DEVICE, major=st.just(1 << 12))
)
# Wrong ones end a layer: they are rare.
_LAYER = st.lists(st.integers(0, 60).flatmap(lambda n: _ENTRY if n else _RARE), max_size=14)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(layers=st.lists(_LAYER, min_size=1, max_size=3))
def test_a_tree_in_memory_is_the_unpacked_one(bench: Bench, layers: list[Layer]) -> None:
    bench.reset()
    for layer in layers:
        left = layer
        while (found := bench.compare(left, on_top=False)) != "equal":
            event(found)
            left = bench.tame(left)
        event(f"{bench.compare(left)}, {len(left) // 5 * 5} entries or more")


def _entry(name: str, kind: bytes = REGULAR, **fields: Any) -> tuple[Entry, bytes]:
    data = fields.pop("data", b"")
    return Entry(name, kind, **fields), data


DIR = {"kind": DIRECTORY, "mode": 0o755}
LINK_TO_D = _entry("l", SYMLINK, linkname="d")
BASE = (
    _entry("", **DIR),
    _entry("d", **DIR, uid=7, gid=8, mtime=9, xattrs={"user.k": b"v", DEFAULT: EXTENDED}),
    _entry("d/old", data=b"old"),
    _entry("d/e", **DIR),
    _entry("d/e/old", data=b"old"),
    _entry("f", data=b"file"),
    LINK_TO_D,
    _entry("up", SYMLINK, linkname="/../.."),
)
_D = _entry("d", **DIR)
CHAIN = [_entry(f"s{number}", SYMLINK, linkname=f"s{number - 1}" if number else "d") for number in range(41)]
EQUAL: dict[str, Layer] = {
    "a link beneath that is a directory later": (_entry("l/x"), _entry("l", **DIR), _entry("l/y")),
    "a link beneath that is deleted later": (_entry("l/x"), _entry(".wh.l"), _entry("l/y")),
    "the same name through a link again": (_D, LINK_TO_D, _entry("l/x"), _entry("d/x", data=b"2"), _entry("l/x")),
    "a hard link within a link's directory": (_D, LINK_TO_D, _entry("d/x"), _entry("d/y", LINK, linkname="l/x")),
    "a hard link into a directory of long ago": (
        _entry("other/x"),
        _entry("first/x"),
        *(_entry(f"d{number}/x") for number in range(7)),
        _entry("first/y", LINK, linkname="other/x"),
    ),
    "a root that hides everything": (_entry("", **DIR), _entry(".wh..wh..opq"), _entry("d/new"), _entry("f")),
    "missing parents": (_entry("d/e/new"), _entry("l/e/two"), _entry("none/of/these")),
    "deletions": (_entry("d/.wh.old"), _entry(".wh.f"), _entry("f"), _entry(".wh.none"), _entry("l/e/.wh.old")),
    "a deleted directory that comes again": (_entry(".wh.d"), _entry("d/new"), _entry("d/.wh.old")),
    "a deletion in a directory that goes": (_entry("d/.wh.old"), _entry("d"), _D, _entry("d/old", **DIR)),
    "opaque": (_D, _entry("d/e/new"), _entry("d/.wh..wh..opq"), _entry("d/.wh.old"), _entry("up/d/e/.wh..wh..opq")),
    "a mark of one's own names": (_D, _entry("d/x"), _entry("d/.wh.x"), _entry(".wh.d")),
    "flips": (_entry("x"), _entry("x", **DIR), _entry("x/y"), _entry("x", SYMLINK, linkname="z"), _entry("x")),
    "a directory whose last attributes count": (
        _entry("x", DIRECTORY, xattrs={"security.capability": b"bad"}),
        _entry("x", DIRECTORY, mode=0o700, xattrs={"user.k": b"v"}),
        _entry("y", DIRECTORY, xattrs={"security.capability": b"bad", ACCESS: MINIMAL}),
        _entry("y", FIFO),
    ),
    "hard links": (
        _entry("a", data=b"1"),
        _entry("b", LINK, linkname="a"),
        _entry("b", LINK, linkname="a"),
        _entry("a", data=b"2"),
        _entry("s", SYMLINK, linkname="a"),
        _entry("t", LINK, linkname="s"),
    ),
    "chains": (
        _entry("a", **DIR),
        _entry("a/b", SYMLINK, linkname="../c"),
        _entry("c", SYMLINK, linkname="k/../k/."),
        _entry("a/b/file", data=b"x"),
        _entry("up/up/a/b/d", **DIR),
    ),
    "as many links as the kernel follows": (_D, *CHAIN, _entry("s39/x")),
    "no way out": (
        _entry("/etc/x"),
        _entry("w", SYMLINK, linkname="/"),
        _entry("w/etc/shadow", data=b"evil"),
        _entry("v", SYMLINK, linkname="../../../../tmp/outside"),
        _entry("v/shadow", data=b"evil"),
        _entry("v/.wh.victim"),
    ),
    "deep": (_entry("d/" * 1900, **DIR), _entry("d/" * 1900 + "x")),
    "far": (_entry("past", mtime=-(1 << 31)), _entry("future", mtime=(1 << 33) + 1, uid=0xFFFF_FFFE)),
    **{f"attributes {number}": (_entry("x", mode=0o664, xattrs=x), _entry("y", DIRECTORY, mode=0o664, xattrs=x))
       for number, x in enumerate(XATTRS[:5])},
}  # fmt: skip
REFUSED: dict[str, Layer] = {
    "a link beneath that is a file later": (_entry("l/x"), _entry("l"), _entry("l/y")),
    "a file as a directory": (_entry("f/x"),),
    "endless links": (_entry("a", SYMLINK, linkname="b"), _entry("b", SYMLINK, linkname="a"), _entry("a/x")),
    "more links than the kernel follows": (_D, *CHAIN, _entry("s40/x")),
    "a hard link to a directory": (_D, _entry("h", LINK, linkname="d")),
    "a hard link to a directory beneath": (_entry("h", LINK, linkname="d/e"),),
    "a hard link to nothing": (_entry("h", LINK, linkname="l/none"),),
    "a hard link to itself": (_D, LINK_TO_D, _entry("d/h", LINK, linkname="l/h")),
    "a hard link to what it replaces": (_entry("n", **DIR), _entry("n/x"), _entry("n", LINK, linkname="n/x")),
    "device zero": (_D, LINK_TO_D, _entry("l/x", CHAR_DEVICE)),
    **{f"capability {number}": (_entry("x", xattrs=x),) for number, x in enumerate(BAD_CAPABILITIES)},
    "a directory's capability": (_entry("x", **DIR, xattrs={"security.capability": b"short"}),),
    **{f"mark {name}": (_entry(name),) for name in (".wh.", ".wh..", ".wh...", "a/.wh.", ".wh.a/b")},
}  # fmt: skip
INEXPRESSIBLE: dict[str, Layer] = {
    "a hard link into an earlier layer": (_entry("h", LINK, linkname="l/old"),),
    "a hard link on its own way": (
        _D,
        _entry("d/x"),
        _entry("w", SYMLINK, linkname="n/../d"),
        _entry("n", LINK, linkname="w/x"),
    ),
    "a name that is too long": (_entry("s", SYMLINK, linkname="n" * 256), _entry("s/x")),
    "a path that is too long": (
        _entry("d/" * 1900, **DIR),
        _entry("s", SYMLINK, linkname="d/" * 1900),
        _entry("s/" + "e/" * 300 + "x"),
    ),
    "a device number": (_entry("x", BLOCK_DEVICE, major=1 << 12),),
    "a default ACL of a file": (_entry("x", xattrs={DEFAULT: EXTENDED}),),
    "an ACL that changes the mode": (_entry("x", mode=0o644, xattrs={ACCESS: EXTENDED}),),
    **{f"attributes {number}": (_entry("x", mode=0o664, xattrs=x),)
       for number, x in enumerate(HARD_XATTRS)},
}  # fmt: skip


@pytest.mark.parametrize(
    ("expected", "layer"),
    [
        pytest.param(expected, layer, id=name)
        for expected, cases in (("equal", EQUAL), ("refused", REFUSED), ("inexpressible", INEXPRESSIBLE))
        for name, layer in cases.items()
    ],
)
def test_cases(bench: Bench, expected: str, layer: Layer) -> None:
    bench.compare(layer)
    bench.reset()
    bench.compare(BASE)
    assert bench.compare(layer) == expected
