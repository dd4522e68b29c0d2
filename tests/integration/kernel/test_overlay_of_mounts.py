"""Overlays whose layers are detached mounts: handed over by descriptor, and what stat tells of their files."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minidock.kernel import files, mount, overlay

pytestmark = pytest.mark.usefixtures("mount_table", "file_backed_mounts")


class Layers(NamedTuple):
    """Images and a detached mount of each, topmost first, and the folders of a writable layer."""

    images: list[Any]
    fds: list[int]
    upper: str
    work: str


@pytest.fixture
def layers(tmp_path: Path, make_image: Callable[[Path, bytes], Any]) -> Iterator[Layers]:
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    images = [make_image(tmp_path / str(number), str(number).encode()) for number in range(3)]
    fds = [image.mount() for image in images]
    yield Layers(images, fds, str(tmp_path / "upper"), str(tmp_path / "work"))
    for fd in fds:
        os.close(fd)


@contextmanager
def merged(lowers: list[str | int], **options: Any) -> Iterator[Path]:
    fd = overlay.overlay(lowers, **options)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def drop_caches() -> None:
    """Forget inodes and directory entries: what is looked up again comes from the layers."""
    Path("/proc/sys/vm/drop_caches").write_text("2")


def test_mounts_and_directories_mixed(layers: Layers, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/only").write_text("tree")
    lowers: list[str | int] = [str(tmp_path / "tree"), layers.fds[1], layers.fds[0], layers.fds[1]]
    with merged(lowers, upper=layers.upper, work=layers.work) as root:
        assert (root / "content").read_text() == "1"
        assert (root / "only").read_text() == "tree"
        (root / "content").write_text("changed")
    assert Path(layers.upper, "content").read_text() == "changed"


def test_the_descriptors_may_be_closed_at_once(layers: Layers) -> None:
    fds = [image.mount() for image in layers.images]
    with merged([*fds], upper=layers.upper, work=layers.work) as root:
        for fd in fds:
            os.close(fd)
        assert (root / "content").read_text() == "0"


def test_one_read_only_mount_is_its_clone(layers: Layers) -> None:
    with merged([layers.fds[2], layers.fds[2]]) as root:
        assert (root / "content").read_text() == "2"
        assert root.stat().st_dev == os.fstat(layers.fds[2]).st_dev
        with pytest.raises(OSError, match="Read-only"):
            (root / "new").touch()


def test_several_read_only(layers: Layers) -> None:
    with merged([*layers.fds], xino=True) as root:
        assert (root / "content").read_text() == "0"
        assert (root / "content").stat().st_dev == root.stat().st_dev


def test_without_descriptors_of_parameters(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    # Linux 6.7 to 6.12 know lowerdir+ but take no descriptors.
    def refuse(fs_fd: int, key: str, value: int, *, path: str = "") -> None:
        raise OSError(errno.EBADF, "Bad file descriptor", path)

    monkeypatch.setattr(mount, "fsconfig_fd", refuse)
    with merged([*layers.fds], upper=layers.upper, work=layers.work) as root:
        assert (root / "content").read_text() == "0"


@pytest.mark.parametrize("writable", [False, True])
def test_where_overlayfs_wants_attached_mounts(
    layers: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    # Linux 6.12 to 6.14.
    monkeypatch.setattr(overlay, "_kernel_release", lambda: (6, 12))
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/only").write_text("tree")
    options = {"upper": layers.upper, "work": layers.work} if writable else {}
    with merged([str(tmp_path / "tree"), *layers.fds], **options, xino=True) as root:
        assert (root / "content").read_text() == "0"
        assert (root / "only").read_text() == "tree"
        assert len({(root / name).stat().st_dev for name in ("content", "only", ".")}) == 1


def test_a_missing_one_among_mounts_to_attach(layers: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_kernel_release", lambda: (6, 12))
    with pytest.raises(FileNotFoundError, match="missing"):
        overlay.overlay([*layers.fds, str(tmp_path / "missing")])


def test_numbers_are_the_overlays_own_and_stay(layers: Layers, tmp_path: Path) -> None:
    options = {"upper": layers.upper, "work": layers.work, "xino": True}
    again = [image.mount() for image in layers.images]
    with merged([*layers.fds], **options) as root:
        device, before = root.stat().st_dev, (root / "content").stat()
        (root / "new").touch()
        (root / "folder").mkdir()
        with open(root / "content", "a") as file:
            file.write("more")
        os.link(root / "content", root / "linked")
        drop_caches()
        names = ("content", "linked", "new", "folder")
        found = {name: (root / name).stat() for name in names}
        assert {status.st_dev for status in found.values()} == {device} == {before.st_dev}
        assert found["content"].st_ino == found["linked"].st_ino == before.st_ino
        assert len({status.st_ino for status in found.values()}) == 3
        with os.scandir(root) as entries:
            assert {entry.name: entry.inode() for entry in entries} == {
                name: status.st_ino for name, status in found.items()
            }
    with merged([*again], **options) as root:
        assert (root / "content").stat().st_ino == before.st_ino
    for fd in again:
        os.close(fd)


@pytest.mark.parametrize("xino", [False, True])
def test_tools_that_stay_on_one_file_system(layers: Layers, tmp_path: Path, xino: bool) -> None:
    with merged([*layers.fds], upper=layers.upper, work=layers.work, xino=xino) as root:
        (root / "new").write_text("new")
        (root / "folder").mkdir()
        tree = f"{root}/."
        found = subprocess.run(["find", tree, "-xdev"], capture_output=True, text=True, check=True, pass_fds=fds(root))
        assert len(found.stdout.split()) == 4
        subprocess.run(["cp", "-ax", tree, tmp_path / "copy"], check=True, pass_fds=fds(root))
        assert sorted(os.listdir(tmp_path / "copy")) == ["content", "folder", "new"]
        counted = subprocess.run(
            ["du", "-xs", "--inodes", tree], capture_output=True, text=True, check=True, pass_fds=fds(root)
        )
        # Without it a file of a layer on another file system has another st_dev than its folder, and du leaves it out.
        assert int(counted.stdout.split()[0]) == (4 if xino else 2)


def fds(root: Path) -> tuple[int]:
    return (int(root.name),)


def test_a_layer_is_not_changed_through_its_mount(layers: Layers) -> None:
    with merged([*layers.fds], upper=layers.upper, work=layers.work, xino=True) as root:
        (root / "content").unlink()
        assert not (root / "content").exists()
        assert Path(f"/proc/self/fd/{layers.fds[0]}/content").read_text() == "0"
    assert files.is_whiteout(Path(layers.upper, "content").lstat())
