"""Control groups on invented mount tables and on a tree of plain files that behaves like version 2."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minidock.kernel import cgroups
from minidock.kernel.cgroups import Cgroup, DeviceRule, Layout

SYSTEMD_V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = """\
25 30 0:23 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
26 25 0:24 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,name=systemd
27 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct
28 25 0:26 / /sys/fs/cgroup/devices rw,nosuid shared:12 - cgroup cgroup rw,devices
29 25 0:27 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid shared:13 - cgroup cgroup rw,net_cls,net_prio
30 25 0:28 / /sys/fs/cgroup/with\\040blank rw,nosuid shared:13 - cgroup cgroup rw,pids
"""
HYBRID = V1 + "31 25 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:14 - cgroup2 cgroup2 rw\n"
READ_ONLY = "40 30 0:24 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n"


@pytest.mark.parametrize(
    ("text", "controllers", "unified", "version"),
    [
        (SYSTEMD_V2, {}, "/sys/fs/cgroup", 2),
        (
            V1,
            {
                "cpu": "/sys/fs/cgroup/cpu,cpuacct",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
                "devices": "/sys/fs/cgroup/devices",
                "pids": "/sys/fs/cgroup/with blank",
            },
            "",
            1,
        ),
        (READ_ONLY, {}, "", 0),
        ("22 1 8:1 / / rw - ext4 /dev/vda1 rw\n", {}, "", 0),
    ],
)
def test_detect(text: str, controllers: dict[str, str], unified: str, version: int) -> None:
    layout = cgroups.detect(text)
    assert layout == Layout(controllers, unified)
    assert layout.version == version


def test_detect_finds_version_2_beside_version_1() -> None:
    layout = cgroups.detect(HYBRID)
    assert layout.unified == "/sys/fs/cgroup/unified"
    assert layout.version == 1


def test_rules_as_version_1_reads_them() -> None:
    assert DeviceRule(True, "a", None, None, "rwm").texts() == ("a",)
    assert DeviceRule(True, "c", 1, None, "rm").texts() == ("c 1:* rm",)
    assert DeviceRule(False, "b", None, None, "m").texts() == ("b *:* m",)
    # A bare "a" line would stand for every device whatever follows it.
    assert DeviceRule(True, "a", 8, 0, "r").texts() == ("b 8:0 r", "c 8:0 r")


def test_no_hierarchy_cannot_limit_devices() -> None:
    group = cgroups.create("x", layout=Layout({}, ""))
    assert group.paths == {}
    group.attach(1)
    group.kill()
    group.remove()
    assert group.processes() == []
    assert not group.frozen
    assert not group.set_pids_max(10)
    with pytest.raises(OSError, match="can limit devices") as caught:
        group.set_devices([])
    assert caught.value.errno == errno.ENODEV


@pytest.fixture
def version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which mkdir makes what the kernel would, and rmdir takes it away."""
    make, remove = os.mkdir, os.rmdir

    def fill(path: Path) -> None:
        files = {
            "cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma\n",
            "cgroup.subtree_control": "",
            "cgroup.procs": "",
            "cgroup.freeze": "0\n",
            "cgroup.events": "populated 0\nfrozen 0\n",
            "pids.max": "max\n",
            "cgroup.kill": "",
        }
        for name, content in files.items():
            (path / name).write_text(content)

    def mkdir(path: str, mode: int = 0o777) -> None:
        make(path, mode)
        fill(Path(path))

    def rmdir(path: str) -> None:
        # The kernel's files do not count; groups below do.
        if not any(entry.is_dir() for entry in Path(path).iterdir()):
            for entry in Path(path).iterdir():
                entry.unlink()
        remove(path)

    mount = tmp_path / "cgroup"
    mkdir(str(mount))
    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "rmdir", rmdir)
    return mount


def test_create_on_version_2(version_2: Path) -> None:
    group = cgroups.create("abc", layout=Layout({}, str(version_2)))
    path = Path(group.paths["unified"])
    assert path.parent == version_2 / "minidock"
    assert path.name.startswith("abc-")
    for parent in (version_2, version_2 / "minidock"):
        # A plain file shows the last of the five writes, over what is left of the longer ones.
        assert (parent / "cgroup.subtree_control").read_text().startswith("+pids")
    assert (path / "cgroup.subtree_control").read_text() == "", "the group itself holds processes, not groups"
    again = cgroups.create("abc", layout=Layout({}, str(version_2)))
    assert again.paths != group.paths, "a group that was killed once must never be used again"


def test_limits_and_signals_on_version_2(version_2: Path) -> None:
    group = cgroups.create("abc", layout=Layout({}, str(version_2)))
    path = Path(group.paths["unified"])
    group.attach(42)
    assert (path / "cgroup.procs").read_text() == "42"
    assert group.processes() == [42]
    assert group.set_pids_max(2048)
    assert (path / "pids.max").read_text().startswith("2048")
    assert group.set_pids_max(-1)
    assert (path / "pids.max").read_text().startswith("max")
    group.kill()
    assert (path / "cgroup.kill").read_text() == "1"
    assert not group.frozen
    (path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    group.freeze()
    assert group.frozen


def test_remove_takes_groups_below_and_is_no_error_twice(version_2: Path) -> None:
    group = cgroups.create("abc", layout=Layout({}, str(version_2)))
    os.mkdir(group.paths["unified"] + "/inner")
    os.mkdir(group.paths["unified"] + "/inner/most")
    group.remove()
    assert not Path(group.paths["unified"]).exists()
    group.remove()
    cgroups.open(group.paths).kill()
    cgroups.remove_parent(layout=Layout({}, str(version_2)))
    assert not (version_2 / "minidock").exists()


def test_failed_create_leaves_nothing(version_2: Path, tmp_path: Path) -> None:
    # The second hierarchy's mount point is a file.
    broken = tmp_path / "broken"
    broken.write_text("")
    with pytest.raises(NotADirectoryError):
        cgroups.create("abc", layout=Layout({"pids": str(version_2), "devices": str(broken)}, ""))
    assert [entry.name for entry in (version_2 / "minidock").iterdir() if entry.is_dir()] == []


def test_joined_controllers_share_their_directory(version_2: Path) -> None:
    mount = str(version_2)
    group = cgroups.create("abc", layout=Layout({"cpu": mount, "cpuacct": mount}, ""))
    assert group.paths["cpu"] == group.paths["cpuacct"]
    assert len(group.directories) == 1


def test_version_1_freezer_is_left_alone_where_version_2_has_one(version_2: Path, tmp_path: Path) -> None:
    freezer = tmp_path / "freezer"
    os.mkdir(str(freezer))
    both = cgroups.create("abc", layout=Layout({"freezer": str(freezer)}, str(version_2)))
    assert set(both.paths) == {"unified"}
    alone = cgroups.create("abc", layout=Layout({"freezer": str(freezer)}, ""))
    assert set(alone.paths) == {"freezer"}


def test_available_uses_the_names_of_version_2(version_2: Path) -> None:
    assert {"cpu", "io", "memory", "pids"} <= cgroups.available(Layout({}, str(version_2)))
    assert cgroups.available(Layout({"blkio": "/x", "pids": "/y"}, "")) == {"io", "pids"}


def test_paths_are_all_there_is_to_record() -> None:
    group = Cgroup({"pids": "/a/b", "unified": "/c/d"})
    assert cgroups.open(group.paths).directories == ("/c/d", "/a/b")
