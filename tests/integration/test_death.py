"""SIGKILL to whoever takes part: the foreground command, the monitor, the container."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def monitor_of(minidock, name: str) -> int:
    """The monitor is the parent of the container's first process."""
    pid = minidock.inspect(name)["State"]["Pid"]
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_running(minidock, name: str) -> bool:
    return bool(minidock("inspect", name, status=None).returncode == 0 and minidock.inspect(name)["State"]["Running"])


def test_sigkill_of_the_foreground_command_leaves_the_container_running(minidock) -> None:
    script = "for i in $(seq 1000); do echo line $i; sleep 0.1; done"
    process = minidock.popen("run", "--name", "one", "--network", "none", "busybox", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"line 1\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    lines = len(minidock.out("logs", "one").splitlines())
    wait_for(lambda: len(minidock.out("logs", "one").splitlines()) > lines)
    assert "one" in minidock.out("ps")
    minidock("kill", "one")
    assert minidock.out("wait", "one") == "137"
    assert "Exited (137)" in minidock.out("ps", "-a")


@pytest.mark.parametrize("detached", [True, False], ids=["detached", "foreground"])
@pytest.mark.parametrize("user", ["", "1000"], ids=["root", "user"])
def test_sigkill_of_the_monitor_takes_the_container_along(minidock, detached: bool, user: str) -> None:
    flags = ["--name", "one", "--network", "none", *(["-u", user] if user else [])]
    if detached:
        minidock("run", "-d", *flags, "busybox", "sleep", "1000")
    else:
        process = minidock.popen("run", *flags, "busybox", "sleep", "1000")
    wait_for(lambda: is_running(minidock, "one"))
    pid, monitor = minidock.inspect("one")["State"]["Pid"], monitor_of(minidock, "one")
    folder = minidock.root / "containers" / minidock.inspect("one")["Id"]
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 2)
    assert "Exited (137)" in minidock.out("ps", "-a")
    state = minidock.inspect("one")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    assert "monitor" in state["Error"]
    assert not (folder / "upper").exists()
    if not detached:
        process.communicate(timeout=10)
        assert process.returncode == 137
    assert minidock.out("rm", "one") == "one"
    assert minidock.out("ps", "-aq") == ""


def test_a_container_whose_first_process_changed_its_user_dies_too(minidock, context) -> None:
    minidock.build(context("FROM busybox\nRUN echo bob:x:1234:1234::/:/bin/sh >> /etc/passwd\n"), "-t", "withuser")
    script = "exec su bob -s /bin/sh -c 'echo ready; exec sleep 1000'"
    minidock("run", "-d", "--name", "one", "--network", "none", "withuser", "sh", "-c", script)
    wait_for(lambda: minidock.out("logs", "one") == "ready")
    pid = minidock.inspect("one")["State"]["Pid"]
    os.kill(monitor_of(minidock, "one"), signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 2)
    assert "Exited (137)" in minidock.out("ps", "-a")
    minidock("rm", "one")


def test_rm_of_one_whose_monitor_died_needs_no_other_command_first(minidock) -> None:
    minidock("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    os.kill(monitor_of(minidock, "one"), signal.SIGKILL)
    assert minidock.out("rm", "one") == "one"


def test_auto_removal_after_the_monitors_death(minidock) -> None:
    minidock("run", "-d", "--rm", "--name", "one", "-v", "/anonymous", "--network", "none", "busybox", "sleep", "1000")
    assert len(minidock.out("volume", "ls", "-q").split()) == 1
    os.kill(monitor_of(minidock, "one"), signal.SIGKILL)
    time.sleep(0.2)
    assert minidock.out("ps", "-aq") == ""
    assert minidock.out("volume", "ls", "-q") == ""


def test_the_name_of_a_dead_container_is_free_after_rm(minidock) -> None:
    for _ in range(2):
        minidock("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
        minidock("rm", "-f", "one")


def test_a_signal_to_the_foreground_command_is_forwarded(minidock) -> None:
    script = "trap 'echo got it; exit 42' TERM; echo ready; while :; do sleep 0.1; done"
    process = minidock.popen("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert out == b"got it\n"
    assert process.returncode == 42


def test_stop_asks_then_kills(minidock) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    minidock("run", "-d", "--name", "polite", "--network", "none", "busybox", "sh", "-c", script)
    wait_for(lambda: minidock.out("logs", "polite") == "ready")
    minidock("stop", "polite")
    assert minidock.out("wait", "polite") == "7"
    minidock("run", "-d", "--name", "deaf", "--network", "none", "busybox", "sleep", "1000")
    begin = time.monotonic()
    assert "--init" in minidock("stop", "-t", "1", "deaf").stderr
    assert time.monotonic() - begin < 8
    assert minidock.out("wait", "deaf") == "137"


def test_pause_and_unpause(minidock) -> None:
    script = "while :; do echo tick; sleep 0.05; done"
    minidock("run", "-d", "--name", "one", "--network", "none", "busybox", "sh", "-c", script)
    minidock("pause", "one")
    assert "(Paused)" in minidock.out("ps")
    before = minidock.out("logs", "one")
    time.sleep(0.3)
    assert minidock.out("logs", "one") == before
    minidock("unpause", "one")
    wait_for(lambda: minidock.out("logs", "one") != before)
    minidock("pause", "one")
    minidock("rm", "-f", "one")
