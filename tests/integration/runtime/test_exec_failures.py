"""A further command that fails on the way leaves nothing, and what it gets is the container's, not the caller's."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from minidock.errors import CommandNotFoundError, ConflictError, ContainerStartError, UsageError
from minidock.log import Log
from minidock.runtime import exec as runtime_exec
from minidock.runtime.context import Stdio
from minidock.runtime.exec import ExecProcess, exec_in


def process(*args: str, user: str = "", terminal: bool = False, cwd: str = "/") -> ExecProcess:
    capabilities = frozenset({"CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"})
    return ExecProcess(args, ("PATH=/bin",), cwd, user, terminal, capabilities, False, None)


def begin(target, what: ExecProcess, stdout: int = -1):
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    out = null if stdout < 0 else stdout
    started = target.started
    try:
        stdio = Stdio(null, out, out, what.terminal)
        return exec_in(started.pid, started.start_time, what, cgroup=started.cgroup, stdio=stdio, log=Log())
    finally:
        os.close(null)


def output_of(target, *args: str, **more: str) -> str:
    read, write = os.pipe2(os.O_CLOEXEC)
    with open(read, "rb") as stream:
        started = begin(target, process(*args, **more), write)
        os.close(write)
        started.wait()
        return stream.read().decode()


def state() -> tuple[list[str], str]:
    return sorted(os.listdir("/proc/self/fd")), Path(f"/proc/self/task/{os.getpid()}/children").read_text()


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        (("nothing",), "", "/", CommandNotFoundError),
        (("true",), "nobody-here", "/", UsageError),
        (("true",), "", "/proc/self/fd/3", ContainerStartError),
    ],
)
def test_after_a_failure(running, terminal: bool, case) -> None:
    args, user, cwd, error = case
    target = running("sleep", "1000")
    before = state()
    for _ in range(3):
        with pytest.raises(error):
            begin(target, process(*args, user=user, cwd=cwd, terminal=terminal))
    assert state() == before
    assert target.started.cgroup.processes() == [target.started.pid]


def test_an_interrupt_kills_the_command(running, monkeypatch) -> None:
    target = running("sleep", "1000")
    before = state()

    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(runtime_exec, "finish_birth", interrupt)
    with pytest.raises(KeyboardInterrupt):
        begin(target, process("sleep", "1000"))
    assert state() == before
    assert target.started.cgroup.processes() == [target.started.pid]


def test_the_limit_of_processes_is_named(running) -> None:
    target = running("sleep", "1000")
    if not target.started.cgroup.set_pids_max(2):
        pytest.skip("this host has no pids controller")
    with pytest.raises(ContainerStartError) as caught:
        begin(target, process("true"))
    assert caught.value.message.startswith("cannot run the command in the container: resource temporarily unavailable")
    assert "limit of processes" in caught.value.hint


def test_a_container_that_is_gone(running) -> None:
    target = running("sleep", "1000")
    started = target.started
    before = state()
    target.started = started._replace(start_time=started.start_time - 1)
    try:
        with pytest.raises(ConflictError, match="not running"):
            begin(target, process("true"))
    finally:
        target.started = started
    assert state() == before


def test_limits_and_score_are_the_containers(running) -> None:
    target = running("sleep", "1000")
    before = resource.getrlimit(resource.RLIMIT_NOFILE), Path("/proc/self/oom_score_adj").read_text()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (700, before[0][1]))
        Path("/proc/self/oom_score_adj").write_text("300")
        text = output_of(target, "sh", "-c", "ulimit -Sn; ulimit -c; cat /proc/self/oom_score_adj; umask")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before[0])
        Path("/proc/self/oom_score_adj").write_text(before[1])
    assert text.split() == ["1024", "0", "0", "0022"]


def test_the_callers_session_keyring_stays_out(running) -> None:
    """Every command of the container is in the container's own session keyring (keyrings(7))."""
    target = running("sh", "-c", "cat /proc/keys; exec sleep 1000")
    monkey = runtime_exec.ps.session_keyring
    names: list[str] = []
    runtime_exec.ps.session_keyring = lambda name: names.append(name) or monkey(name)
    try:
        assert output_of(target, "echo", "x") == "x\n"
    finally:
        runtime_exec.ps.session_keyring = monkey
    assert names == [os.path.basename(target.started.cgroup.directories[0]).rpartition("-")[0]]


def test_a_users_streams_can_be_opened_again(running) -> None:
    target = running("sleep", "1000")
    assert output_of(target, "sh", "-c", "echo out > /dev/stdout; id -u", user="bob") == "out\n1000\n"
