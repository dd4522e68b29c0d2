"""Choosing a driver: what works here, and one sentence for what does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.drivers import registry
from minidock.drivers.overlay2 import Overlay2
from minidock.drivers.vfs import Vfs
from minidock.errors import DriverError
from minidock.kernel import mount, overlay


@pytest.fixture
def folders(lab: Any, tmp_path: Path) -> tuple[str, str]:
    for name in ("layers", "tmp"):
        (tmp_path / name).mkdir()
    return str(tmp_path / "layers"), str(tmp_path / "tmp")


def test_the_drivers_of_this_host(folders: tuple[str, str]) -> None:
    assert registry.working(folders[1]) == ["overlay2", "vfs"]
    assert os.listdir(folders[1]) == []


def test_the_default_and_the_second_opening(folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    driver = registry.open_driver("", *folders)
    assert driver.name == "overlay2"
    assert os.stat(f"{folders[0]}/overlay2").st_mode & 0o777 == 0o700
    monkeypatch.setattr(Overlay2, "probe", lambda _: pytest.fail("tried out again"))
    assert registry.open_driver("overlay2", *folders).name == "overlay2"


def test_a_sweep_that_is_quicker_than_the_lock_is_no_reason(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several commands at once on a new data root: one sweeps away what another has just made."""
    lock, swept = registry.lock_exclusive, iter([True, True, False])

    def swept_away(fd: int) -> None:
        lock(fd)
        if next(swept):
            os.rmdir(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(registry, "lock_exclusive", swept_away)
    assert registry.open_driver("overlay2", *folders).name == "overlay2"
    assert next(swept, None) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("btrfs", "on a btrfs file system, and that is on "),
        ("zfs", "on a zfs file system"),
        ("devicemapper", "thin pool"),
        ("aufs", "kernel module aufs"),
        ("fuse-overlayfs", "without root"),
        ("overlay", "removed it"),
        ("nonsense", "knows no driver of that name"),
    ],
)
def test_other_drivers_say_what_is_missing(folders: tuple[str, str], name: str, reason: str) -> None:
    with pytest.raises(DriverError, match=reason) as caught:
        registry.open_driver(name, *folders)
    assert f"'{name}' cannot be used" in caught.value.message
    assert caught.value.hint == "drivers that work on this host: overlay2, vfs"


def test_a_file_system_of_the_right_kind(folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "fs_name", lambda _: "btrfs")
    with pytest.raises(DriverError, match="no driver that uses btrfs snapshots"):
        registry.open_driver("btrfs", f"{folders[0]}/not/made/yet", folders[1])


def test_a_host_without_overlayfs(folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> int:
        raise OSError(19, "No such device", "overlay")

    monkeypatch.setattr(overlay, "overlay", refuse)
    with pytest.raises(DriverError, match=r"mounts no overlayfs on the file system \w+ .*No such device") as caught:
        registry.open_driver("overlay2", *folders)
    assert caught.value.hint == "drivers that work on this host: vfs"
    assert os.listdir(folders[0]) == os.listdir(folders[1]) == []


def test_a_host_where_nothing_works(folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(1, "Operation not permitted", args[0])

    monkeypatch.setattr(os, "chown", refuse)
    monkeypatch.setattr("minidock.drivers.overlay2.set_opaque", refuse)
    for name, reason in (("vfs", "owner of files"), ("overlay2", "cannot hold overlayfs's marks")):
        with pytest.raises(DriverError, match=reason) as caught:
            registry.open_driver(name, *folders)
        assert "no storage driver works here" in caught.value.hint


def test_folders_that_cannot_be_used(folders: tuple[str, str]) -> None:
    with pytest.raises(DriverError, match="cannot be tried out"):
        registry.open_driver("vfs", folders[0], f"{folders[1]}/missing")
    Path(folders[1], "file").touch()
    with pytest.raises(DriverError, match="cannot make"):
        registry.open_driver("vfs", f"{folders[1]}/file", folders[1])


@pytest.fixture
def on_overlay(lab: Any, tmp_path: Path) -> Iterator[str]:
    """A folder on overlayfs at a real path: of a detached mount nothing can be cloned before Linux 6.15."""
    stack = lab.stack("overlay2")
    folder = tmp_path / "on-overlay"
    folder.mkdir()
    with stack.mounted(stack.prepared()) as tree:
        mount.move_mount(int(os.path.basename(tree)), str(folder))
        yield str(folder)
        mount.umount2(str(folder), mount.MNT_DETACH)


def test_overlay2_on_an_overlay_is_refused_and_vfs_works(lab: Any, on_overlay: str) -> None:
    """A data root on overlayfs, as in a container: overlayfs takes no upper directory there."""
    root, stack = on_overlay, lab.stack("overlay2")
    os.mkdir(f"{root}/layers")
    os.mkdir(f"{root}/tmp")
    assert registry.working(f"{root}/tmp") == ["vfs"]
    inner = registry.open_driver("vfs", f"{root}/layers", f"{root}/tmp")
    assert isinstance(inner, Vfs)
    made = type(stack)(inner, f"{root}/tmp")
    made.edit(lambda path: [os.mkdir(f"{path}/d"), os.mkdir(f"{path}/d/gone")])
    made.edit(lambda path: os.rmdir(f"{path}/d/gone"))
    again = type(stack)(registry.open_driver("vfs", f"{root}/layers", f"{root}/tmp"), made.new_folder())
    for key in list(inner.keys()):
        inner.remove(key)
    for diff_id in made.diff_ids:
        again.unpack(made.tars[diff_id], diff_id)
    assert list(again.view()) == ["", "d"]
