"""The container's tree: mounts, devices, masks, stubs, and that the host sees nothing of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minidock.errors import CommandNotFoundError, ContainerStartError
from minidock.model.spec import bind_mount
from minidock.runtime.step import cgroup_name


def bind(source: Path, target: str, *options: str):
    def change(spec) -> None:
        spec["mounts"].append(bind_mount(str(source), target, options=("rbind", "rprivate", *options)))

    return change


def test_nothing_appears_in_the_hosts_mount_table(sandbox) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert sandbox.sh("mount | grep -c overlay").output == "1\n"
    assert Path("/proc/self/mountinfo").read_text() == before


def test_writes_land_in_the_upper_directory_only(sandbox) -> None:
    sandbox.sh("echo changed > /etc/passwd; rm /bin/vi")
    assert (sandbox.upper / "etc/passwd").read_text() == "changed\n"
    assert "bob" in (sandbox.lower / "etc/passwd").read_text()
    assert (sandbox.lower / "bin/vi").exists()


def test_a_mount_point_that_had_to_be_made_is_reported_and_leaves_no_trace_in_times(sandbox, tmp_path: Path) -> None:
    before = (sandbox.lower / "etc").stat()
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1\n")
    outcome = sandbox.sh("cat /etc/resolv.conf", change=bind(file, "/etc/resolv.conf"))
    assert outcome.output == "nameserver 192.0.2.1\n"
    assert outcome.stubs == ("/etc/resolv.conf",)
    assert (sandbox.upper / "etc").stat().st_mtime_ns == before.st_mtime_ns


def test_deep_mount_points_are_all_reported(sandbox, tmp_path: Path) -> None:
    outcome = sandbox.sh("ls -d /a/b/c", change=bind(tmp_path, "/a/b/c"))
    assert outcome.stubs == ("/a", "/a/b", "/a/b/c")


def test_read_only_bind_holds_in_submounts_too(sandbox, tmp_path: Path) -> None:
    outcome = sandbox.sh("echo x > /m/f; echo y > /m/shm/f", change=bind(Path("/dev"), "/m", "rro"))
    assert outcome.output.count("Read-only file system") == 2


def test_bind_target_behind_a_link_of_the_image_stays_inside(sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "mark").write_text("inside\n")
    (sandbox.upper / "d").symlink_to("/etc")
    outcome = sandbox.sh("cat /etc/mark", change=bind(source, "/d"))
    assert outcome.output == "inside\n"
    assert not Path("/etc/mark").exists()


def test_bind_over_proc_through_a_link_is_refused(sandbox, tmp_path: Path) -> None:
    (sandbox.upper / "p").symlink_to("/proc/sys")
    with pytest.raises(ContainerStartError, match="leads into /proc"):
        sandbox.run("true", change=bind(tmp_path, "/p"))


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_pseudo_file_systems_need_ordinary_directories(sandbox, tmp_path: Path, name: str) -> None:
    tree = tmp_path / "tree"
    os.system(f"cp -al {sandbox.lower} {tree}")
    sandbox.lower = tree
    (tree / name).rmdir()
    (tree / name).symlink_to("/etc")
    with pytest.raises(ContainerStartError, match=r"ordinary directory|symbolic link"):
        sandbox.run("true")


def test_missing_bind_source_is_named(sandbox) -> None:
    with pytest.raises(ContainerStartError, match="bind source path does not exist: /no/such"):
        sandbox.run("true", change=bind(Path("/no/such"), "/x"))


def test_subpath_must_stay_in_the_volume(sandbox, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v/out").symlink_to("/etc")

    def change(spec, subpath: str) -> None:
        bind(tmp_path / "v", "/x")(spec)
        spec["mounts"][-1]["io.minidock.subpath"] = subpath

    for subpath in ("../work", "out", "missing"):
        with pytest.raises(ContainerStartError, match="volume-subpath"):
            sandbox.run("true", change=lambda spec, subpath=subpath: change(spec, subpath))


def test_devices(sandbox) -> None:
    names = sandbox.sh("cd /dev; echo *").output.split()
    expected = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert names == expected.split()
    assert sandbox.sh("echo x > /dev/full").status == 1
    assert sandbox.sh("head -c 3 /dev/zero | od -An -tx1").output.split() == ["00"] * 3


def test_masks_and_read_only_paths(sandbox) -> None:
    masked = "/proc/kcore /proc/keys /proc/interrupts /proc/timer_list"
    assert set(sandbox.sh(f"for p in {masked}; do [ ! -e $p ] || wc -c < $p; done").output.split()) == {"0"}
    assert sandbox.sh("ls /sys/firmware | wc -l").output == "0\n"
    for path in ("/proc/sys/kernel/domainname", "/proc/irq/default_smp_affinity", "/sys/kernel/x"):
        assert "Read-only file system" in sandbox.sh(f"echo x > {path}").output, path


def test_cgroup_view_is_the_containers_own(sandbox) -> None:
    lines = [line for line in sandbox.sh("cat /proc/self/cgroup").output.splitlines() if "name=systemd" not in line]
    assert {line.rpartition(":")[2] for line in lines} == {"/"}
    assert "Read-only" in sandbox.sh("mkdir /sys/fs/cgroup/pids/x || mkdir /sys/fs/cgroup/x").output


def test_no_cgroup_is_left(sandbox) -> None:
    sandbox.run("true")
    with pytest.raises(CommandNotFoundError):
        sandbox.run("nothing")
    assert [str(path) for path in Path("/sys/fs/cgroup").rglob(f"{cgroup_name()}-*")] == []
