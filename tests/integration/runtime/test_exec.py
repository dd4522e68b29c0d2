"""A further command in a running container."""

from __future__ import annotations

import os

import pytest

from minidock.errors import CommandNotFoundError, ConflictError, ContainerStartError
from minidock.log import Log
from minidock.runtime.context import Stdio
from minidock.runtime.exec import ExecProcess, exec_in

FEW = frozenset({"CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"})


def execute(target, *args: str, user: str = "", cwd: str = "/", start_time: int | None = None) -> tuple[int, str]:
    read, write = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    process = ExecProcess(args, ("PATH=/bin",), cwd, user, False, FEW, False, None)
    started = target.started
    try:
        done = exec_in(
            started.pid,
            started.start_time if start_time is None else start_time,
            process,
            cgroup=started.cgroup,
            stdio=Stdio(null, write, write),
            log=Log(),
        )
        os.close(write)
        write = -1
        status = done.wait()
        chunks = []
        while chunk := os.read(read, 65536):
            chunks.append(chunk)
        return status, b"".join(chunks).decode()
    finally:
        for fd in (read, write, null):
            if fd >= 0:
                os.close(fd)


def test_joins_everything(running) -> None:
    target = running("sh", "-c", "echo $$; hostname; exec sleep 1000")
    assert target.read_line() == "1"
    name = target.read_line()
    status, output = execute(target, "sh", "-c", "hostname; ls /proc | grep -c '^[0-9]'; cat /proc/1/comm; ls /")
    assert status == 0
    assert output.splitlines()[0] == name
    assert output.splitlines()[2] == "sleep"
    for kind in ("mnt", "net", "uts", "ipc", "pid", "cgroup"):
        inside = execute(target, "readlink", f"/proc/self/ns/{kind}")[1].strip()
        assert inside == os.readlink(f"/proc/{target.started.pid}/ns/{kind}"), kind


def test_is_in_the_containers_cgroup(running) -> None:
    target = running("sleep", "1000")
    before = set(target.started.cgroup.processes())
    assert execute(target, "sh", "-c", "grep -v systemd /proc/self/cgroup | cut -d: -f3 | sort -u")[1] == "/\n"
    assert before == {target.started.pid}


def test_statuses(running) -> None:
    target = running("sleep", "1000")
    assert execute(target, "sh", "-c", "exit 9")[0] == 9
    assert execute(target, "sh", "-c", "kill -TERM $$")[0] == 143
    with pytest.raises(CommandNotFoundError):
        execute(target, "nothing")


def test_user_and_capabilities(running) -> None:
    target = running("sleep", "1000")
    assert execute(target, "id", "-u", user="bob")[1] == "1000\n"
    status = execute(target, "grep", "Cap", "/proc/self/status")[1]
    assert "CapInh:\t0000000000000000" in status
    assert "CapBnd:\t00000000000001c1" in status


def test_a_recycled_pid_is_not_entered(running) -> None:
    target = running("sleep", "1000")
    with pytest.raises(ConflictError, match="not running"):
        execute(target, "true", start_time=target.started.start_time + 1)


def test_the_joining_process_cannot_be_opened_from_inside(running) -> None:
    """Between joining and exec the process is not dumpable: the container cannot read its /proc entries."""
    script = "while :; do for p in /proc/[0-9]*; do readlink $p/root $p/cwd | grep -v '^/$'; done; done 2>/dev/null"
    target = running("sh", "-c", script)
    for _ in range(20):
        execute(target, "true")
    os.set_blocking(target.output, False)
    with pytest.raises(BlockingIOError):
        print(os.read(target.output, 1000))


def test_descriptors(running) -> None:
    target = running("sleep", "1000")
    assert execute(target, "sh", "-c", "for i in 3 4 5 6 7 8 9 11 12 13; do readlink /proc/$$/fd/$i; done")[1] == ""


def test_a_missing_working_directory_is_not_made(running) -> None:
    target = running("sleep", "1000")
    with pytest.raises(ContainerStartError, match="working directory '/no/such' does not exist"):
        execute(target, "pwd", cwd="/no/such")
