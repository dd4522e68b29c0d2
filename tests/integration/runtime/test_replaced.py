"""People's mounts where the engine has its own, and roots that are read-only or lack what is to be mounted on."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from minidock.errors import ContainerStartError, UsageError
from minidock.model.mounts import Mount
from minidock.model.spec import bind_mount
from minidock.model.steps import TreeMount


def bind(source: Path, target: str, *, read_only: bool = False) -> Mount:
    return Mount("bind", str(source), target, read_only=read_only)


def tmpfs(target: str, *options: str) -> Mount:
    return Mount("tmpfs", "", target, options=options)


def device_names(sandbox, *mounts: Mount) -> list[str]:
    return sandbox.container("cd /dev; echo *", *mounts).output.split()


def test_a_directory_of_the_host_at_dev_is_what_dev_is(sandbox, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mark").write_text("x")
    assert device_names(sandbox, bind(own, "/dev")) == ["mark"]
    assert os.listdir(own) == ["mark"]


def test_masks_hold_with_a_directory_of_the_host_at_dev(sandbox, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    outcome = sandbox.container("wc -c < /proc/keys; ls /sys/firmware | wc -l", bind(own, "/dev"))
    assert outcome.output.split() == ["0", "0"]


def test_a_tmpfs_at_dev_is_filled_with_the_devices(sandbox) -> None:
    names = device_names(sandbox, tmpfs("/dev", "dev"))
    links = ["core", "fd", "ptmx", "stderr", "stdin", "stdout"]
    assert names == sorted([*links, "full", "null", "random", "tty", "urandom", "zero"])
    assert sandbox.container("echo x > /dev/null", tmpfs("/dev", "dev")).status == 0
    assert sandbox.container("wc -c < /proc/keys", tmpfs("/dev", "dev")).output == "0\n"


def test_mounts_below_dev_lie_on_top_of_the_engines(sandbox, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "mark").write_text("x")
    assert sandbox.container("ls /dev/shm", bind(shared, "/dev/shm")).output == "mark\n"
    assert "null" in device_names(sandbox, bind(shared, "/dev/shm"))
    assert sandbox.container("df /dev/shm | tail -1 | awk '{print $2}'", tmpfs("/dev/shm", "size=64k")).output == "64\n"
    assert sandbox.container("ls /dev/own", bind(shared, "/dev/own")).output == "mark\n"


def test_a_mount_at_sys_takes_the_cgroup_view_along(sandbox, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    assert sandbox.container("ls -A /sys; grep -c ' /sys/fs' /proc/mounts", bind(own, "/sys")).output == "0\n"
    assert os.listdir(own) == []


def test_the_cgroup_namespace_does_not_hang_on_the_mount(sandbox, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    lines = sandbox.container("cat /proc/self/cgroup", bind(own, "/sys/fs/cgroup")).output.splitlines()
    assert {line.rpartition(":")[2] for line in lines if "name=systemd" not in line} == {"/"}


def test_a_tmpfs_of_a_person_and_a_bind_in_it(sandbox, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    outcome = sandbox.container(
        "df -T /run /run/a | awk '{print $2}'", bind(tmp_path / "deep", "/run/a"), tmpfs("/run")
    )
    assert outcome.output.split()[1] == "tmpfs"
    assert outcome.output.split()[2] != "tmpfs"


def test_shallow_mounts_come_first_whatever_their_order(sandbox, tmp_path: Path) -> None:
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    (tmp_path / "outer/in").mkdir()
    outcome = sandbox.container("ls /m /m/in", bind(tmp_path / "inner", "/m/in"), bind(tmp_path / "outer", "/m"))
    assert outcome.output.split() == ["/m:", "in", "outer", "/m/in:", "inner"]


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/proc//sys", "/x/../proc/self"])
def test_nothing_may_be_mounted_in_proc(sandbox, tmp_path: Path, target: str) -> None:
    with pytest.raises(UsageError, match="nothing may be mounted inside /proc"):
        sandbox.container("true", bind(tmp_path, target))


def test_read_only_root_still_gets_its_mount_points(sandbox, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    outcome = sandbox.container(
        "pwd; touch /missing/file && echo written; touch /x; touch /new/x; touch /tmp/x",
        Mount("volume", "v", "/missing"),
        read_only=True,
        workdir="/new",
    )
    assert outcome.output.startswith("/new\nwritten\n")
    assert outcome.output.count("Read-only file system") == 3
    assert os.listdir(tmp_path / "v") == ["file"]


def test_read_only_root_leaves_the_engines_own_writable(sandbox) -> None:
    outcome = sandbox.container("echo x > /dev/shm/x; echo x > /dev/x; echo x > /dev/null; echo ok", read_only=True)
    assert outcome.output == "ok\n"


def test_generated_files_on_an_image_without_etc(sandbox, tmp_path: Path) -> None:
    tree = tmp_path / "bare"
    for name in ("bin", "proc", "sys", "dev"):
        (tree / name).mkdir(parents=True)
    for name in ("sh", "cat"):
        shutil.copy("/bin/busybox", tree / "bin" / name)
    sandbox.lower = tree
    file = tmp_path / "hosts"
    file.write_text("192.0.2.1 h\n")
    for read_only in (False, True):
        outcome = sandbox.container("cat /etc/hosts", files=(("/etc/hosts", str(file)),), read_only=read_only)
        assert outcome.output == "192.0.2.1 h\n"


def test_stubs_are_told_by_their_real_path(sandbox, tmp_path: Path) -> None:
    """The image's /etc is a link: what had to be made lies where it leads, and has to be removed from there."""
    tree = tmp_path / "linked"
    os.system(f"cp -al {sandbox.lower} {tree}")
    (tree / "usr").mkdir()
    (tree / "etc").rename(tree / "usr/etc")
    (tree / "etc").symlink_to("usr/etc")
    sandbox.lower = tree
    file = tmp_path / "hosts"
    file.write_text("")

    def change(spec) -> None:
        spec["mounts"].append(bind_mount(str(file), "/etc/hosts", options=("rbind", "rprivate")))

    assert sandbox.run("true", change=change).stubs == ("/usr/etc/hosts",)


def test_what_is_made_has_its_mode_whatever_the_callers_umask(sandbox, tmp_path: Path) -> None:
    device = {"path": "/dev/net/deep/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640}

    def change(spec) -> None:
        spec["mounts"].append(bind_mount(str(tmp_path), "/a/b", options=("rbind", "rprivate")))
        spec["linux"]["devices"].append(device)

    before = os.umask(0o077)
    try:
        outcome = sandbox.sh("stat -c %a /a /w /dev/net /dev/net/deep/zero /dev/null; umask", change=change, cwd="/w")
    finally:
        os.umask(before)
    assert outcome.output.split() == ["755", "755", "755", "640", "666", "0022"]


def test_many_devices_in_folders_need_no_descriptor_each(sandbox) -> None:
    devices = [{"path": f"/dev/cpu/{n}/msr", "type": "c", "major": 1, "minor": 5} for n in range(300)]

    def change(spec) -> None:
        spec["linux"]["devices"] += devices

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    try:
        assert sandbox.sh("ls /dev/cpu | wc -l", change=change).output == "300\n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_device_out_of_dev_is_refused(sandbox) -> None:
    def change(spec) -> None:
        spec["linux"]["devices"].append({"path": "/etc/x", "type": "c", "major": 1, "minor": 5})

    with pytest.raises(UsageError, match="device '/etc/x' is outside of /dev"):
        sandbox.run("true", change=change)


def test_nothing_of_the_hosts_later_mounts_reaches_a_plain_tree(sandbox, tmp_path: Path) -> None:
    """Every mount of the container is private, also a root that is bound from a shared mount (mount_namespaces(7))."""
    tree = tmp_path / "shared"
    tree.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tree], check=True)
    try:
        subprocess.run(["mount", "--make-shared", tree], check=True)
        subprocess.run(["cp", "-a", f"{sandbox.lower}/.", tree], check=True)
        sandbox.root = TreeMount(str(tree))
        assert sandbox.sh("grep -c -E 'master:|shared:' /proc/self/mountinfo").output == "0\n"
    finally:
        subprocess.run(["umount", tree], check=True)


def test_a_mount_point_behind_a_dangling_link_is_named(sandbox, tmp_path: Path) -> None:
    (sandbox.upper / "d").symlink_to("/nowhere/at/all")
    with pytest.raises(ContainerStartError, match="a dangling symbolic link is in the way"):
        sandbox.container("true", bind(tmp_path, "/d"))
