"""Tests of what only the virtual machine has: a kernel of Debian's with cgroup version 2 alone. They run inside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidock.kernel import bpf, cgroups, mount
from minidock.kernel.overlay import overlay

UNIFIED = Path("/sys/fs/cgroup")


def group_of(minidock, name: str) -> Path:
    pid = minidock.inspect(name)["State"]["Pid"]
    return UNIFIED / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def test_this_is_the_machine() -> None:
    assert os.uname().release.startswith("6.1.")
    layout = cgroups.detect()
    assert layout.controllers == {}
    assert layout.unified == str(UNIFIED)
    assert {"cpu", "memory", "pids"} <= set((UNIFIED / "cgroup.controllers").read_text().split())


def test_bootstrap_and_run(empty_minidock) -> None:
    empty_minidock("image", "bootstrap", "busybox")
    assert empty_minidock.out("run", "--rm", "busybox", "sh", "-c", "echo hello; exec true") == "hello"


def test_bridge_and_its_modules(minidock) -> None:
    script = (
        "ip -4 -o addr show eth0 | grep -o 'inet [0-9.]*'; ip route | head -n 1; "
        "ping -c 1 -W 5 10.90.0.1 >/dev/null && echo alive"
    )
    lines = minidock.out("run", "--rm", "busybox", "sh", "-c", script).splitlines()
    assert lines[0].startswith("inet 10.90.")
    assert lines[1].startswith("default via 10.90.0.1 dev eth0")
    assert lines[2] == "alive"
    modules = {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
    assert {"overlay", "veth", "bridge", "nf_tables", "nft_masq"} <= modules


def test_a_container_has_the_device_program_and_its_limits(minidock) -> None:
    minidock("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    group = group_of(minidock, "one")
    assert group.parent == UNIFIED / "minidock"
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert len(bpf.prog_query(fd)) == 1
    finally:
        os.close(fd)
    assert (group / "pids.max").read_text() == "2048\n"
    assert (group / "cgroup.controllers").read_text().split()
    assert minidock.out("exec", "one", "cat", "/proc/self/cgroup") == "0::/"


@pytest.mark.parametrize(
    ("arguments", "opened"),
    [((), False), (("--cap-add", "ALL"), False), (("--privileged",), True)],
    ids=["default", "all capabilities", "privileged"],
)
def test_the_device_program_decides(minidock, arguments: tuple[str, ...], opened: bool) -> None:
    """A node may be made and not opened: /dev/zero's is in the list, /dev/kmsg's and the disk's are not."""
    script = (
        "mknod /zero c 1 5; mknod /kmsg c 1 11; mknod /disk b 259 0; "
        "head -c 1 /zero | wc -c; dd if=/disk of=/one bs=512 count=1; : </kmsg && echo opened"
    )
    done = minidock("run", "--rm", "--network", "none", *arguments, "busybox", "sh", "-c", script, status=None)
    assert done.stdout.split()[0] == "1"
    assert (done.returncode == 0) == opened
    assert ("opened" in done.stdout) == opened
    assert done.stderr.count("Operation not permitted") == (0 if opened else 2)


def test_pause_freezes_and_rm_kills(minidock) -> None:
    minidock("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    group = group_of(minidock, "one")
    minidock("pause", "one")
    assert "frozen 1" in (group / "cgroup.events").read_text()
    minidock("rm", "-f", "one")
    assert not group.exists()


def test_128_layers_without_lowerdir_plus(tmp_path: Path) -> None:
    lowers = [str(tmp_path / f"layer-{number:0100}") for number in range(128)]
    for number, lower in enumerate(lowers):
        os.mkdir(lower)
        Path(lower, f"file{number}").touch()
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    fd = overlay(lowers, upper=str(tmp_path / "upper"), work=str(tmp_path / "work"))
    try:
        assert len(os.listdir(f"/proc/self/fd/{fd}")) == 128
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    finally:
        os.close(fd)
    assert (tmp_path / "upper/new").exists()


def test_an_image_of_128_layers_runs(minidock, context) -> None:
    lines = [f"COPY f /f{number}" for number in range(126)]
    minidock.build(context("\n".join(["FROM busybox", *lines]) + "\n", {"f": "x"}), "-t", "tall")
    assert minidock.out("run", "--rm", "--network", "none", "tall", "sh", "-c", "ls -d /f* | wc -l") == "126"


TRY = "(: <{0}) 2>/dev/null && echo reads; (: >{0}) 2>/dev/null && echo writes; true"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), []),
        (("--device", "/dev/nvme0:/dev/x:r"), ["reads"]),
        (("--device", "/dev/nvme0:/dev/x:w"), ["writes"]),
        (("--device", "/dev/nvme0:/dev/x"), ["reads", "writes"]),
        (("--device-cgroup-rule", "c {0} r"), ["reads"]),
        (("--device-cgroup-rule", "c *:* rw"), ["reads", "writes"]),
        (("--device-cgroup-rule", "b *:* rw"), []),
    ],
)
def test_the_device_program_has_what_was_asked_for(minidock, flags: tuple[str, ...], words: list[str]) -> None:
    number = os.stat("/dev/nvme0").st_rdev
    text = f"{os.major(number)}:{os.minor(number)}"
    script = f"mknod /dev/x c {text.replace(':', ' ')} 2>/dev/null; {TRY.format('/dev/x')}"
    asked = [flag.format(text) for flag in flags]
    output = minidock.out("run", "--rm", "--network", "none", *asked, "busybox", "sh", "-c", script)
    assert output.split() == words


@pytest.fixture
def apparmor(tmp_path: Path) -> Iterator[str]:
    """The name of a profile that this kernel has: what confines nothing in a policy namespace of its own."""
    if Path("/sys/module/apparmor/parameters/enabled").read_text() != "Y\n":
        pytest.skip("AppArmor is not at work in the machine")
    point = tmp_path / "securityfs"
    point.mkdir()
    mount.mount("securityfs", str(point), "securityfs", 0)
    namespace = point / "apparmor/policy/namespaces/minidock"
    namespace.mkdir()
    yield ":minidock:unconfined"
    namespace.rmdir()
    mount.umount2(str(point))


def label_of(pid: int | str) -> str:
    return Path(f"/proc/{pid}/attr/apparmor/current").read_text()


@pytest.mark.parametrize("further", [(), ("--security-opt", "no-new-privileges")])
def test_an_apparmor_profile_is_entered(minidock, apparmor: str, further: tuple[str, ...]) -> None:
    flags = ("--security-opt", f"apparmor={apparmor}", *further)
    minidock("run", "-d", "--name", "one", "--network", "none", *flags, "busybox", "sleep", "1000")
    assert "minidock" in label_of(minidock.inspect("one")["State"]["Pid"])
    assert "minidock" not in label_of("self")
    minidock("exec", "-d", "one", "sleep", "4711")
    found = [
        path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if path.read_bytes() == b"sleep\0004711\0"
    ]
    assert ["minidock" in label_of(pid) for pid in found] == [True]


def test_an_apparmor_profile_that_is_not_loaded(minidock, apparmor: str) -> None:
    option = ("--security-opt", "apparmor=minidock-absent")
    done = minidock("run", "--rm", "--network", "none", *option, "busybox", "true", status=125)
    assert "cannot enter the AppArmor profile 'minidock-absent': it is not loaded" in done.stderr
