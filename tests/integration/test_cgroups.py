"""Control groups of this host: version 1 where it is mounted, and version 2, also beside it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidock.kernel import bpf, cgroups, process
from minidock.kernel.cgroups import Cgroup, DeviceRule, Layout

DEFAULT = [
    DeviceRule(False, "a", None, None, "rwm"),
    DeviceRule(True, "c", None, None, "m"),
    DeviceRule(True, "b", None, None, "m"),
    DeviceRule(True, "c", 1, 3, "rwm"),
    DeviceRule(True, "c", 1, 7, "r"),
]


def layouts() -> list[tuple[str, Layout]]:
    """This host's layout, and the version 2 hierarchy alone with its device program."""
    found = cgroups.detect()
    named = [("host", found)]
    if found.controllers and found.unified:
        named.append(("unified", Layout({}, found.unified)))
    if found.controllers:
        named.append(("version 1 alone", Layout(found.controllers, "")))
    return named


LAYOUTS = layouts()


@pytest.fixture(params=[layout for _, layout in LAYOUTS], ids=[name for name, _ in LAYOUTS])
def group(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    if not request.param.version:
        pytest.skip("no cgroup hierarchy is mounted writable")
    group = cgroups.create("minidock-test", layout=request.param)
    yield group
    group.kill()
    group.remove()
    assert not any(os.path.exists(path) for path in group.directories)


@contextlib.contextmanager
def sleeper(group: Cgroup) -> Iterator[process.Child]:
    """A process in the group, killed at the end."""
    with process.spawn(lambda: time.sleep(60)) as child:
        try:
            group.attach(child.pid)
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.pidfd_send_signal(child.pidfd, 9)
            with contextlib.suppress(ChildProcessError):
                process.wait_pidfd(child.pidfd)


def attempt(path: str, flags: int) -> str:
    """What opening ``path`` gives inside the group, as the name of an errno or "ok"."""
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def report_from(group: Cgroup, scratch: Path) -> list[str]:
    out, into = os.pipe()

    def look() -> None:
        group.attach_self()
        answers = [
            attempt("/dev/null", os.O_RDWR),
            attempt("/dev/zero", os.O_RDONLY),
            attempt("/dev/full", os.O_RDONLY),
            attempt("/dev/full", os.O_WRONLY),
        ]
        node = str(scratch / "zero")
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        answers.append(attempt(node, os.O_RDONLY))
        os.write(into, " ".join(answers).encode())

    with process.spawn(look) as child:
        os.close(into)
        assert child.wait() == 0
    with open(out) as file:
        return file.read().split()


def test_devices(group: Cgroup, tmp_path: Path) -> None:
    group.set_devices(DEFAULT)
    assert report_from(group, tmp_path) == ["ok", "EPERM", "ok", "EPERM", "EPERM"]


def test_devices_may_be_opened_wide(group: Cgroup, tmp_path: Path) -> None:
    group.set_devices([DeviceRule(True, "a", None, None, "rwm")])
    assert report_from(group, tmp_path) == ["ok"] * 5


def test_devices_may_be_set_again(group: Cgroup, tmp_path: Path) -> None:
    group.set_devices([DeviceRule(True, "a", None, None, "rwm")])
    group.set_devices(DEFAULT)
    assert report_from(group, tmp_path)[1] == "EPERM"
    if "devices" not in group.paths:
        fd = group.open_unified()
        try:
            assert len(bpf.prog_query(fd)) == 1, "the former program was replaced, not joined"
        finally:
            os.close(fd)


def test_attach_and_kill(group: Cgroup) -> None:
    with sleeper(group) as child:
        assert group.processes() == [child.pid]
        for path in group.directories:
            assert str(child.pid) in Path(path, "cgroup.procs").read_text().split()
        group.kill()
        assert process.wait_pidfd(child.pidfd) == -9
        assert group.processes() == []


def test_born_into_the_group(group: Cgroup) -> None:
    """The start's way: version 2 by clone3, version 1 by the child itself, without waiting for a grace period."""
    fd = group.open_unified() if "unified" in group.paths else -1
    out, into = os.pipe()

    def child() -> None:
        group.attach_self(born=fd >= 0)
        os.write(into, Path("/proc/self/cgroup").read_bytes())

    with process.spawn(child, cgroup_fd=fd) as born:
        os.close(into)
        with open(out) as file:
            lines = [line.split(":", 2) for line in file.read().splitlines()]
        assert born.wait() == 0
    if fd >= 0:
        os.close(fd)
    name = os.path.basename(group.directories[0])
    for controller in group.paths:
        key = "" if controller == "unified" else controller
        (path,) = [path for _, names, path in lines if key in names.split(",")]
        assert path.endswith(f"/minidock/{name}")


def test_kill_one_by_one_also_kills_what_is_frozen(group: Cgroup) -> None:
    """As on version 1 alone, and on kernels before 5.14, which have no cgroup.kill."""
    with sleeper(group) as child:
        group.freeze()
        group._kill_one_by_one()
        assert process.wait_pidfd(child.pidfd) == -9


def test_kill_reaches_groups_below(group: Cgroup) -> None:
    inner = Cgroup({name: f"{path}/inner" for name, path in group.paths.items()})
    for name, path in inner.paths.items():
        os.mkdir(path)
        if name == "cpuset":
            for file in ("cpuset.cpus", "cpuset.mems"):
                Path(path, file).write_text(Path(group.paths[name], file).read_text())
    with sleeper(inner) as child:
        assert group.processes() == [child.pid]
        group.kill()
        assert process.wait_pidfd(child.pidfd) == -9
    group.remove()
    assert not any(os.path.exists(path) for path in inner.directories)


def test_freeze_and_thaw(group: Cgroup) -> None:
    out, into = os.pipe()

    def count() -> None:
        while True:
            os.write(into, b".")
            time.sleep(0.002)

    with process.spawn(count) as child:
        os.close(into)
        group.attach(child.pid)
        os.read(out, 1)
        group.freeze()
        assert group.frozen
        os.set_blocking(out, False)
        with contextlib.suppress(BlockingIOError):
            os.read(out, 65536)
        time.sleep(0.03)
        with pytest.raises(BlockingIOError):
            os.read(out, 1)
        group.thaw()
        assert not group.frozen
        os.set_blocking(out, True)
        assert os.read(out, 1) == b"."
        group.kill()
        assert child.wait() == -9
    os.close(out)


def test_pids_are_limited(group: Cgroup) -> None:
    if not group.set_pids_max(3):
        pytest.skip("this hierarchy has no pids controller")

    def breed() -> int:
        group.attach_self()
        born = 0
        with contextlib.suppress(BlockingIOError):
            while born < 10:
                process.spawn(lambda: time.sleep(60))
                born += 1
        return born

    with process.spawn(breed) as child:
        assert child.wait() == 2
    group.kill()


def test_remove_waits_for_the_last_process(group: Cgroup) -> None:
    with sleeper(group) as child:
        group.kill()
        group.remove()
        assert not any(os.path.exists(path) for path in group.directories)
        assert process.wait_pidfd(child.pidfd) == -9


def test_busy_group_is_not_removed(group: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_REMOVE_SECONDS", 0.05)
    with sleeper(group), pytest.raises(OSError, match=group.directories[0]) as caught:
        group.remove()
    assert caught.value.errno == errno.EBUSY


def test_recorded_paths_open_the_same_group(group: Cgroup) -> None:
    with sleeper(group) as child:
        again = cgroups.open(dict(group.paths))
        assert again.processes() == [child.pid]
        again.kill()
        assert process.wait_pidfd(child.pidfd) == -9


def test_refused_program_says_why() -> None:
    # r0 was never written.
    with pytest.raises(OSError, match="refuses the device program"):
        bpf.prog_load(bytes([0x95, 0, 0, 0, 0, 0, 0, 0]))


def test_program_is_not_attached_to_what_is_no_group(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        bpf.limit_devices(str(tmp_path), [tuple(rule) for rule in DEFAULT])
