"""Mounts on the real kernel: the classic calls, detached mounts, attributes, pivot_root."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import mount, namespaces
from minidock.kernel.overlay import overlay

pytestmark = pytest.mark.usefixtures("mount_table")
Run = Callable[..., Any]


def options_of(path: str) -> set[str]:
    """The per-mount options of the topmost mount at ``path``, from mountinfo."""
    rows = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return set([row[5] for row in rows if row[4] == path][-1].split(","))


def is_read_only(path: Path) -> bool:
    """Whether a file can't be made there because the mount is read-only."""
    try:
        path.touch()
    except OSError as error:
        return error.errno == errno.EROFS
    return False


def test_mount_and_umount(tmp_path: Path, in_namespaces: Run) -> None:
    target = str(tmp_path)

    def inside() -> list[object]:
        flags = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
        mount.mount("tmpfs", target, "tmpfs", flags, "mode=700,size=64k")
        Path(target, "x").touch()
        seen = [os.path.exists(f"{target}/x"), {"nosuid", "nodev", "noexec"} <= options_of(target)]
        mount.umount2(target, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
        return [*seen, os.path.exists(f"{target}/x")]

    assert in_namespaces(inside) == [True, True, False]
    assert list(tmp_path.iterdir()) == []


def test_new_mount_is_detached_until_moved(tmp_path: Path, in_namespaces: Run) -> None:
    def inside() -> list[str]:
        before = Path("/proc/self/mountinfo").read_text()
        fd = mount.new_mount("tmpfs", [("mode", "0711"), ("size", "64k")], attrs=mount.MOUNT_ATTR_NODEV, source="name")
        assert Path("/proc/self/mountinfo").read_text() == before
        Path(f"/proc/self/fd/{fd}/early").touch()
        mount.move_mount(fd, str(tmp_path))
        assert "nodev" in options_of(str(tmp_path))
        assert tmp_path.stat().st_mode & 0o777 == 0o711
        return os.listdir(tmp_path)

    assert in_namespaces(inside) == ["early"]


def test_move_to_a_descriptor_whose_name_leads_elsewhere_by_now(tmp_path: Path, in_namespaces: Run) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "victim").mkdir()

    def inside() -> list[bool]:
        target = os.open(tmp_path / "target", os.O_PATH | os.O_DIRECTORY)
        (tmp_path / "target").rename(tmp_path / "moved")
        (tmp_path / "target").symlink_to("victim")
        mount.move_mount(mount.new_mount("tmpfs"), target)
        return [os.path.ismount(tmp_path / "moved"), os.path.ismount(tmp_path / "victim")]

    assert in_namespaces(inside) == [True, False]


def test_move_to_a_path_does_not_follow_a_final_link(tmp_path: Path, in_namespaces: Run) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "link").symlink_to("victim")

    def inside() -> bool:
        with pytest.raises(OSError, match="link"):
            mount.move_mount(mount.new_mount("tmpfs"), str(tmp_path / "link"))
        return os.path.ismount(tmp_path / "victim")

    assert in_namespaces(inside) is False


def test_file_systems_own_words_reach_the_error() -> None:
    with pytest.raises(OSError, match="Unknown parameter 'nonsense'") as caught:
        mount.new_mount("tmpfs", [("nonsense", "1")])
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="nosuchfs") as caught:
        mount.new_mount("nosuchfs")
    assert caught.value.errno == errno.ENODEV


def test_failed_mounts_leave_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="nonsense"):
        mount.new_mount("tmpfs", [("nonsense", "1")])
    with pytest.raises(FileNotFoundError):
        overlay(["/nonexistent/1", "/nonexistent/2"])
    with pytest.raises(FileNotFoundError):
        overlay(["/nonexistent/1"])
    assert os.listdir("/proc/self/fd") == before


def test_bind_of_a_directory_and_of_a_file(tmp_path: Path, in_namespaces: Run) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()

    def inside() -> list[object]:
        mount.move_mount(mount.open_tree(str(tmp_path / "source")), str(tmp_path / "dir"))
        file = os.open(tmp_path / "source" / "file", os.O_PATH)
        mount.move_mount(mount.open_tree(file), str(tmp_path / "file"))
        return [os.listdir(tmp_path / "dir"), (tmp_path / "file").read_text()]

    assert in_namespaces(inside) == [["file"], "content"]


@pytest.mark.parametrize("recursive", [False, True])
def test_recursive_bind_and_recursive_read_only(tmp_path: Path, in_namespaces: Run, recursive: bool) -> None:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()

    def inside() -> list[str]:
        mount.move_mount(mount.new_mount("tmpfs"), str(tmp_path / "source"))
        (tmp_path / "source" / "sub").mkdir()
        mount.move_mount(mount.new_mount("tmpfs"), str(tmp_path / "source" / "sub"))
        tree = mount.open_tree(str(tmp_path / "source"), recursive=True)
        mount.mount_setattr(tree, attr_set=mount.MOUNT_ATTR_RDONLY, propagation=mount.MS_PRIVATE, recursive=recursive)
        mount.move_mount(tree, str(tmp_path / "target"))
        written = [name for name in ("x", "sub/x") if not is_read_only(tmp_path / "target" / name)]
        mount.mount_setattr(tree, attr_clear=mount.MOUNT_ATTR_RDONLY)
        (tmp_path / "target" / "x").touch()
        return written

    assert in_namespaces(inside) == ([] if recursive else ["sub/x"])


def test_open_tree_without_clone_names_the_mount_itself(tmp_path: Path, in_namespaces: Run) -> None:
    def inside() -> bool:
        mount.move_mount(mount.new_mount("tmpfs"), str(tmp_path))
        fd = mount.open_tree(str(tmp_path), clone=False)
        mount.mount_setattr(fd, attr_set=mount.MOUNT_ATTR_NOEXEC)
        return "noexec" in options_of(str(tmp_path))

    assert in_namespaces(inside) is True


def test_pivot_into_a_detached_overlay_that_the_host_never_sees(tmp_path: Path, in_namespaces: Run) -> None:
    for name in ("lower1", "lower2", "upper", "work", "point"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower1" / "one").touch()
    (tmp_path / "lower2" / "two").touch()
    lowers = [str(tmp_path / "lower1"), str(tmp_path / "lower2")]
    root = overlay(lowers, upper=str(tmp_path / "upper"), work=str(tmp_path / "work"))

    def inside() -> list[object]:
        mount.move_mount(root, str(tmp_path / "point"))
        os.chdir(tmp_path / "point")
        mount.pivot_root(".", ".")
        mount.umount2(".", mount.MNT_DETACH)
        mount.chroot(".")
        os.chdir("/")
        Path("/new").write_text("written")
        return sorted(os.listdir("/"))

    try:
        flags = namespaces.CLONE_NEWPID | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWNET
        assert in_namespaces(inside, flags) == ["new", "one", "two"]
    finally:
        os.close(root)
    assert (tmp_path / "upper" / "new").read_text() == "written"
    assert list((tmp_path / "point").iterdir()) == []
