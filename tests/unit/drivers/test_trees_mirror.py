"""One tree made what another is, and what a merge would remove."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minidock.drivers import trees

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="owners are copied, which only root may do")

Call = Callable[[int, int], object]


def on(call: Call, source: Path, target: Path) -> object:
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    try:
        return call(*fds)
    finally:
        for fd in fds:
            os.close(fd)


def shown(tree: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in (tree, *tree.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        peers = [str(other.relative_to(tree)) for other in tree.rglob("*") if other.lstat().st_ino == status.st_ino]
        kept = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content, sorted(peers))
        found[str(path.relative_to(tree))] = kept
    return found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A tree and another one, which differ in everything that can differ."""
    source, target = tmp_path / "source", tmp_path / "target"
    for tree in (source, target):
        for name in ("same", "both", "deep/er"):
            (tree / name).mkdir(parents=True)
        (tree / "same/f").write_text("equal")
        os.utime(tree / "same/f", ns=(10**9, 10**9))
    (source / "both/new").write_text("new")
    (source / "both/changed").write_text("after")
    (target / "both/changed").write_text("before")
    (target / "both/gone").write_text("gone")
    (target / "gone/with/all").mkdir(parents=True)
    (source / "was-folder").write_text("file")
    (target / "was-folder/x").mkdir(parents=True)
    (source / "was-file").mkdir(mode=0o711)
    (target / "was-file").write_text("file")
    (source / "link").symlink_to("/etc/passwd")
    (target / "link").symlink_to("same")
    (source / "deep/er/one").write_text("linked")
    os.link(source / "deep/er/one", source / "two")
    (target / "two").write_text("linked")
    os.link(target / "two", target / "three")
    os.mkfifo(source / "pipe", 0o600)
    os.chown(source / "both/new", 5, 6)
    os.chmod(source / "both", 0o700)
    return source, target


def test_a_mirror_is_the_same(pair: tuple[Path, Path]) -> None:
    source, target = pair
    kept = (target / "same/f").stat().st_ino
    on(trees.mirror, source, target)
    assert shown(target) == shown(source)
    assert (target / "same/f").stat().st_ino == kept, "what is the same is not written again"
    on(trees.mirror, source, target)
    assert shown(target) == shown(source)


def test_no_link_of_the_target_is_followed(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, target = pair
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "f").write_text("mine")
    (target / "was-file").unlink()
    (target / "was-file").symlink_to(elsewhere)
    (source / "was-file/f").write_text("theirs")
    on(trees.mirror, source, target)
    assert (elsewhere / "f").read_text() == "mine"
    assert shown(target) == shown(source)


def test_what_is_in_the_way_of_a_merge(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for path in ("source/a/b/c", "target/a/b/c", "target/only"):
        (tmp_path / path).mkdir(parents=True)
    (source / "a/f").write_text("f")
    (target / "a/f").write_text("old")
    assert on(trees.in_the_way, source, target) == ""
    (source / "a/b/x").write_text("x")
    (target / "a/b/x").mkdir()
    assert on(trees.in_the_way, source, target) == "a/b/x"
