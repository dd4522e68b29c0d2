"""Each defence of the unpacker matters: taken down, archives of rows 23 to 27 and 32 to 35 get what they want.

An archive is taken apart by the engine's own functions in a child of the test, in the two forms that a layer has: as a
tree on disk, and as an index in memory, which the host's files are out of reach of by construction. Where two defences
stand behind each other, the first is taken down alone, and then both. The list of all pairs is docs/security-tests.md.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from minidock.drivers import (
    erofs_reader,
    erofs_writer,
    erofs_xattrs,
    inode_xattrs,
    layer_tree,
    parents,
    tar_fields,
    tar_reader,
    trees,
    unpack,
    whiteouts,
    xattrs,
)
from minidock.drivers.nodes import Node
from minidock.drivers.tar_reader import TarReader
from tests.integration.attack import forger
from tests.integration.attack.archives import long_chain
from tests.integration.attack.bench import Bench
from tests.integration.attack.forger import device, directory, file, hard_link, pax, symlink
from tests.integration.attack.tools import Standing, apart, naive_open


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def names_unchecked() -> None:
    tar_reader.clean_name = lambda raw, **_: raw


def links_followed() -> None:
    def following(root: int, path: str, flags: int, **_: object) -> int:
        return naive_open(root, path, flags & ~os.O_NOFOLLOW)

    parents.open_beneath = trees.open_beneath = following


def both(*patches: Callable[[], None]) -> Callable[[], None]:
    return lambda: [patch() for patch in patches] and None


# Rows 23 to 27, and 32: what leads out


@pytest.mark.parametrize("name", [b"../victim/planted", b"a/../../victim/planted"])
@pytest.mark.parametrize("override", [False, True], ids=["row_23_header", "row_32_override"])
def test_rows_23_and_32_a_tree_without_the_check_of_names(bench: Bench, name: bytes, override: bool) -> None:
    """Behind it stands the resolution beneath the tree's own directory."""
    parts = (directory(b"a"), pax({b"path": name}) + file(b"fine") if override else file(name, b"evil"))
    assert apart(partial(bench.tree, *parts)).startswith("ArchiveError: the name")
    assert "OSError: [Errno 18]" in apart(partial(bench.tree, *parts), names_unchecked)
    assert os.listdir(bench.victim) == ["treasure"]
    apart(partial(bench.tree, *parts), both(names_unchecked, links_followed))
    assert sorted(os.listdir(bench.victim)) == ["planted", "treasure"]


def test_row_23_an_index_without_the_check_of_names(bench: Bench) -> None:
    """Behind it stand the writer's own check and the strict reader: no kernel is handed a ".." that is not its own."""
    parts = (directory(b"a"), file(b"a/..", b"evil"))

    def unchecked_writer() -> None:
        names_unchecked()
        erofs_writer._check_names = lambda *_: None

    def unread() -> None:
        unchecked_writer()
        erofs_reader.read = lambda *_, **__: Node(stat.S_IFDIR)

    assert apart(partial(bench.index, *parts)).startswith("ArchiveError: the name")
    assert "a name that no file can have" in apart(partial(bench.index, *parts), names_unchecked)
    assert "the names of a directory are not sorted" in apart(partial(bench.index, *parts), unchecked_writer)
    assert apart(partial(bench.index, *parts), unread) == "a"


def test_row_24_without_resolution_beneath_links_are_written_through(bench: Bench) -> None:
    parts = (symlink(b"l", bench.outside), file(b"l/planted", b"evil"))
    assert apart(partial(bench.tree, *parts)) != ""
    assert os.listdir(bench.victim) == ["treasure"]
    apart(partial(bench.tree, *parts), links_followed)
    assert sorted(os.listdir(bench.victim)) == ["planted", "treasure"]


@pytest.mark.parametrize("where", ["", "l"])
def test_row_24_of_an_archive_that_is_added_too(bench: Bench, where: str) -> None:
    bench.layer.mkdir()
    (bench.layer / "l").symlink_to(bench.victim)
    parts = (file(b"planted" if where else b"l/planted", b"evil"),)
    assert apart(lambda: bench.added(where, *parts)) == "added"
    assert os.listdir(bench.victim) == ["treasure"]
    apart(lambda: bench.added(where, *parts), links_followed)
    assert sorted(os.listdir(bench.victim)) == ["planted", "treasure"]


def test_row_25_without_resolution_beneath_a_hard_link_leads_out(bench: Bench) -> None:
    parts = (symlink(b"l", bench.outside), hard_link(b"h", b"l/treasure"))
    for form in (bench.tree, bench.index):
        assert "hard link" in apart(partial(form, *parts))
    assert (bench.victim / "treasure").stat().st_nlink == 1
    assert apart(partial(bench.tree, *parts), links_followed) == "h l"
    assert (bench.victim / "treasure").stat().st_nlink == 2


def test_row_25_a_hard_link_to_a_link_is_the_links_other_name(bench: Bench) -> None:
    parts = (symlink(b"s", bench.outside + b"/treasure"), hard_link(b"h", b"s"))

    def following(source: str, name: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        del src_dir_fd, follow_symlinks
        os.link(os.readlink(bench.layer / source), name, dst_dir_fd=dst_dir_fd)

    def patch() -> None:
        unpack.os = Standing(os, link=following)  # type: ignore[assignment]

    assert apart(partial(bench.tree, *parts)) == "h s"
    assert (bench.victim / "treasure").stat().st_nlink == 1
    assert apart(partial(bench.tree, *parts), patch) == "h s"
    assert (bench.victim / "treasure").stat().st_nlink == 2


@pytest.mark.parametrize("mark", [b"l/.wh..wh..opq", b"l/.wh.new"])
def test_row_26_without_resolution_beneath_a_mark_hides_what_is_outside(bench: Bench, mark: bytes) -> None:
    (bench.below / "l").mkdir()
    (bench.below / "l/new").touch()
    parts = (symlink(b"l", bench.outside), file(mark))

    def marked() -> tuple[list[str], list[str]]:
        return sorted(os.listdir(bench.victim)), os.listxattr(bench.victim)

    apart(partial(bench.tree, *parts))
    assert marked() == (["treasure"], [])
    apart(partial(bench.tree, *parts), links_followed)
    assert marked() == ((["new", "treasure"], []) if b"new" in mark else (["treasure"], ["trusted.overlay.opaque"]))


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b".wh.a/b"])
def test_row_26_without_the_check_of_marks_they_delete_what_has_no_name(bench: Bench, name: bytes) -> None:
    def patch() -> None:
        def deleted_name(text: str) -> str:
            return text.replace(whiteouts.PREFIX, "")

        layer_tree.deleted_name = unpack.deleted_name = deleted_name

    for form in (bench.tree, bench.index):
        assert "meaningless whiteout" in apart(partial(form, file(name)))
        assert "meaningless whiteout" not in apart(partial(form, file(name)), patch)


def test_row_27_without_resolution_beneath_a_long_chain_leads_out(bench: Bench) -> None:
    parts = (*long_chain(bench.outside), file(b"escape/planted", b"evil"))
    apart(partial(bench.tree, *parts))
    assert os.listdir(bench.victim) == ["treasure"]
    apart(partial(bench.tree, *parts), links_followed)
    assert sorted(os.listdir(bench.victim)) == ["planted", "treasure"]


def test_row_32_without_the_check_of_owners_a_file_keeps_that_of_the_engine(bench: Bench) -> None:
    """Minus one means "as it is" to chown."""
    parts = (pax({b"uid": b"4294967295"}) + file(b"x", mode=0o4755),)

    def patch() -> None:
        tar_reader._owner = lambda value, _: value

    assert "impossible uid" in apart(partial(bench.tree, *parts))
    assert apart(partial(bench.tree, *parts), patch) == "x"
    assert (bench.layer / "x").stat().st_uid == 0


def test_row_32_without_the_grammar_of_overrides_they_are_guessed(bench: Bench) -> None:
    parts = (pax({b"uid": b"1_0"}) + file(b"x"),)

    def patch() -> None:
        tar_fields.pax_number = lambda value, **_: int(value)

    assert "invalid uid" in apart(partial(bench.tree, *parts))
    assert apart(partial(bench.tree, *parts), patch) == "x"
    assert (bench.layer / "x").stat().st_uid == 10


# Rows 33 to 35: what an image may not bring


def test_row_33_without_its_refusal_a_device_is_a_deletion(bench: Bench) -> None:
    """That devices cannot be opened is the container's device rules: test_defences_sandbox.py."""
    parts = (device(b"x", 0, 0),)

    def patch() -> None:
        unpack._Unpacker._make_special = staticmethod(  # type: ignore[method-assign]
            lambda entry, fd, base, _: os.mknod(base, stat.S_IFCHR, os.makedev(entry.major, entry.minor), dir_fd=fd)
        )
        layer_tree._inode = lambda *_: Node(stat.S_IFCHR)

    for form in (bench.tree, bench.index):
        assert "marks a deletion" in apart(partial(form, *parts))
        assert apart(partial(form, *parts), patch) == "x"
    status = (bench.layer / "x").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0


def test_row_34_attributes_of_overlayfs_would_hide_what_is_beneath(bench: Bench) -> None:
    """Of an index three functions hold them off: what is kept, what is written, and what the reader takes."""
    parts = (forger.with_xattrs({b"trusted.overlay.redirect": b"/etc"}, directory(b"d")),)

    def patch() -> None:
        xattrs.belongs = inode_xattrs.belongs = lambda _: True

    def everywhere() -> None:
        patch()
        erofs_xattrs.belongs = lambda _: True

    assert apart(partial(bench.tree, *parts)) == apart(partial(bench.index, *parts)) == "d"
    assert os.listxattr(bench.layer / "d") == []
    assert apart(partial(bench.tree, *parts), patch) == "d"
    assert os.getxattr(bench.layer / "d", "trusted.overlay.redirect") == b"/etc"
    assert "which is not a layer's" in apart(partial(bench.index, *parts), patch)
    assert apart(partial(bench.index, *parts), everywhere) == "d"


def test_row_34_an_index_without_the_check_of_capabilities_holds_what_the_kernel_refuses(bench: Bench) -> None:
    """On a tree the kernel itself refuses it."""
    parts = (forger.with_xattrs({b"security.capability": b"short"}, file(b"x")),)

    def patch() -> None:
        inode_xattrs._check_capability = lambda *_: None

    for form in (bench.tree, bench.index):
        assert "file capability" in apart(partial(form, *parts), patch if form == bench.tree else bool)
    assert apart(partial(bench.index, *parts), patch) == "x"


def test_row_35_without_exclusive_creation_a_file_is_written_through_a_link(bench: Bench) -> None:
    parts = (symlink(b"t", bench.outside + b"/treasure"), file(b"t", b"evil"))

    def patch() -> None:
        unpack._CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC

    assert apart(partial(bench.tree, *parts)) == "t"
    assert (bench.victim / "treasure").read_text() == "treasure"
    assert apart(partial(bench.tree, *parts), patch) == "t"
    assert (bench.victim / "treasure").read_text() == "evil"


def test_row_35_an_index_that_keeps_its_way_loses_what_comes_later(bench: Bench) -> None:
    parts = (directory(b"u"), file(b"u/a"), file(b"u", b"x"), directory(b"u"), file(b"u/last"))

    def patch() -> None:
        layer_tree.LayerTree._forget_directories = lambda _: None  # type: ignore[method-assign]
        parents.Parents.replaced = lambda *_: None  # type: ignore[method-assign]

    def scanned() -> str:
        tree = layer_tree.scan(TarReader(io.BytesIO(b"".join(parts) + forger.END)), None)
        return " ".join(os.fsdecode(name) for name in (tree.root.children or {})[b"u"].children or ())

    assert apart(scanned) == "last"
    assert apart(partial(bench.tree, *parts)) == "u"
    assert os.listdir(bench.layer / "u") == ["last"]
    apart(partial(bench.tree, *parts), patch)
    assert (apart(scanned, patch), os.listdir(bench.layer / "u")) != ("last", ["last"])
