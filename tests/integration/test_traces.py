"""After a container: no trace on the host but its record and its log."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from minidock.store.layout import DataRoot

CGROUPS = Path("/sys/fs/cgroup")


def links() -> set[str]:
    return set(os.listdir("/sys/class/net"))


def cgroups_of(container: str) -> list[str]:
    found: list[str] = []
    for parent in (CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())):
        if (parent / "minidock").is_dir():
            found += [name for name in os.listdir(parent / "minidock") if name.startswith(container)]
    return found


def all_groups() -> set[Path]:
    """Every group of minidock's: version 2 alone has them a level higher than version 1 and what is beside it."""
    found = [*CGROUPS.glob("minidock/*"), *CGROUPS.glob("*/minidock/*")]
    return {path for path in found if path.is_dir()}


def processes_holding(folder: Path) -> list[str]:
    """Command lines that name the data root, or whose process has a file of it open."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                names = [os.readlink(fd) for fd in (entry / "fd").iterdir()]
                text = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(folder) in text or any(name.startswith(str(folder)) for name in names):
                found.append(f"{entry.name} {text!r}")
    return found


@pytest.fixture(autouse=True)
def layers_are_mounted(minidock) -> None:
    """The first use of a data root's layers pins a namespace with their mounts, for all containers after it."""
    minidock("run", "--rm", "--network", "none", "busybox", "true")


def test_the_hosts_mount_table_shows_the_pin_and_no_layer(minidock, mounts_tarballs: str) -> None:
    run = DataRoot(str(minidock.root)).run
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()]
    shown = [(line[4], line[line.index("-") + 1]) for line in lines if "minidock" in " ".join(line)]
    ours = [(path.encode().decode("unicode_escape"), kind) for path, kind in shown]
    pin = [] if mounts_tarballs else [(f"{run}/layers", "tmpfs"), (f"{run}/layers/ns", "nsfs")]
    assert [pair for pair in ours if pair[0].startswith((run, str(minidock.root)))] == pin


def test_after_run_nothing_is_left_but_the_record(minidock) -> None:
    mounts, before = Path("/proc/self/mountinfo").read_text(), links() | {"minidock0"}
    minidock("run", "--name", "one", "busybox", "sh", "-c", "echo said; touch /changed")
    identity = minidock.inspect("one")["Id"]
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert cgroups_of(identity) == []
    assert processes_holding(minidock.root) == []
    deadline = time.monotonic() + 10
    while links() - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert links() - before == set()
    folder = minidock.root / "containers" / identity
    assert not (folder / "upper").exists()
    assert not (folder / "work").exists()
    assert minidock.inspect("one")["State"]["Status"] == "exited"
    assert "Exited (0)" in minidock.out("ps", "-a")
    assert minidock.out("logs", "one") == "said"
    assert os.listdir("/run/minidock/net/minidock0") == [] or identity not in "".join(
        path.read_text() for path in Path("/run/minidock/net/minidock0").iterdir()
    )


def test_while_it_runs_the_hosts_mount_table_is_as_before(minidock) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    minidock("run", "-d", "--name", "one", "-v", "data:/d", "busybox", "sleep", "1000")
    assert Path("/proc/self/mountinfo").read_text() == mounts
    minidock("rm", "-f", "one")
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_rm_takes_the_record_too(minidock) -> None:
    minidock("run", "--rm", "--network", "none", "busybox", "true")
    assert minidock.out("ps", "-aq") == ""
    assert os.listdir(minidock.root / "containers") == ["by-name"]
    assert os.listdir(minidock.root / "containers/by-name") == []
    assert os.listdir(minidock.root / "tmp") == []


def test_keep_keeps(minidock) -> None:
    minidock("run", "--keep", "--name", "one", "--network", "none", "busybox", "sh", "-c", "echo x >> /kept; cat /kept")
    folder = minidock.root / "containers" / minidock.inspect("one")["Id"]
    assert (folder / "upper/kept").read_text() == "x\n"
    again = minidock("start", "-a", "one")
    assert again.stdout == "x\nx\n"
    assert "fresh" not in again.stderr
    minidock("rm", "one")
    assert not folder.exists()


def test_start_without_keep_begins_on_a_fresh_layer_and_says_so(minidock) -> None:
    minidock("run", "--name", "one", "--network", "none", "busybox", "sh", "-c", "echo x >> /file; cat /file")
    again = minidock("start", "-a", "one")
    assert again.stdout == "x\n"
    assert "fresh" in again.stderr
    assert "--keep" in again.stderr


def test_a_start_that_fails_leaves_a_created_container_and_no_leak(minidock) -> None:
    mounts, before = Path("/proc/self/mountinfo").read_text(), links() | {"minidock0"}
    minidock("run", "--name", "one", "busybox", "no-such-command", status=127)
    value = minidock.inspect("one")
    assert value["State"]["Status"] == "created"
    assert "no-such-command" in value["State"]["Error"]
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert cgroups_of(value["Id"]) == []
    time.sleep(0.5)
    assert links() - before == set()
    minidock("run", "--rm", "busybox", "no-such-command", status=127)
    assert len(minidock.out("ps", "-aq").split()) == 1


def test_many_runs_leak_nothing(minidock) -> None:
    before, groups = links() | {"minidock0"}, all_groups()
    for _ in range(20):
        minidock("run", "--rm", "busybox", "true")
    time.sleep(1)
    assert links() - before == set()
    assert all_groups() - groups == set()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert "minidock" not in listed


def test_teardown_takes_all_off_the_host_and_the_next_run_sets_it_up_again(minidock) -> None:
    minidock("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    assert "one is running" in minidock("system", "teardown", status=1).stderr
    minidock("rm", "-f", "one")
    minidock("system", "teardown")
    assert "minidock0" not in links()
    assert "minidock" not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    minidock("run", "--rm", "busybox", "true")
    assert "minidock0" in links()
