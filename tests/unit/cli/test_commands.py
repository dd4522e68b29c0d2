"""What the commands on containers ask of the engine, and what they print."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import pytest

from minidock.cli import main, terminal
from minidock.engine.listings import ExplainedStep, LogPiece
from minidock.engine.results import ExecResult, RunResult
from minidock.errors import (
    CommandNotFoundError,
    ConflictError,
    MinidockError,
    MountSpecError,
    NoSuchImageError,
    NoSuchVolumeError,
    UsageError,
)
from minidock.volumes.volumes import Volume

ID = "ab" * 32


class TestRun:
    def test_the_containers_status_is_the_commands(self, run: Any, engine: Any) -> None:
        engine.results["run"] = RunResult(ID, 42)
        done = run("run", "--rm", "busybox", "sh", "-c", "exit 42")
        assert (done.status, done.out) == (42, "")
        verb, arguments, options = engine.calls[0]
        assert (verb, arguments) == ("run", ("busybox", "sh", "-c", "exit 42"))
        assert (options["stdin"], options["stdout"], options["stderr"]) == (0, 1, 2)
        assert options["auto_remove"] is True

    def test_detached_prints_the_id(self, run: Any, engine: Any) -> None:
        engine.results["run"] = RunResult(ID)
        assert run("run", "-d", "busybox").out == f"{ID}\n"
        assert engine.calls[0][2]["detach"] is True
        assert "stdin" not in engine.calls[0][2]

    def test_every_flag_reaches_the_engine(self, run: Any, engine: Any) -> None:
        engine.results["create"] = ID
        line = (
            "create -i -t --rm --name n -e A=1 -e B -w /w -u 1:2 --entrypoint /e -h host -l a=b -l c "
            "-v v1:/v --mount type=tmpfs,dst=/m --tmpfs /t:ro --volumes-from c:ro "
            "--read-only --keep --cap-add NET_ADMIN --cap-drop ALL "
            "--privileged --security-opt no-new-privileges --network none --init --stop-signal INT --stop-timeout 3 "
            "--shm-size 1m --ulimit core=0 --sysctl kernel.sem=1 --device /dev/null --device-cgroup-rule c "
            "--group-add g img x"
        )
        assert run(*line.split()).out == f"{ID}\n"
        assert engine.calls == [
            (
                "create",
                ("img", "x"),
                {
                    "name": "n",
                    "env": ("A=1", "B"),
                    "workdir": "/w",
                    "user": "1:2",
                    "entrypoint": ("/e",),
                    "hostname": "host",
                    "labels": ("a=b", "c"),
                    "volumes": ("v1:/v",),
                    "mounts": ("type=tmpfs,dst=/m",),
                    "tmpfs": ("/t:ro",),
                    "volumes_from": ("c:ro",),
                    "read_only": True,
                    "keep": True,
                    "auto_remove": True,
                    "cap_add": ("NET_ADMIN",),
                    "cap_drop": ("ALL",),
                    "privileged": True,
                    "security_opt": ("no-new-privileges",),
                    "network": "none",
                    "init": True,
                    "stop_signal": "INT",
                    "stop_timeout": 3,
                    "shm_size": 1048576,
                    "tty": True,
                    "interactive": True,
                    "ulimits": ("core=0",),
                    "sysctls": ("kernel.sem=1",),
                    "devices": ("/dev/null",),
                    "device_cgroup_rules": ("c",),
                    "group_add": ("g",),
                },
            )
        ]

    def test_without_flags_docker_decides(self, run: Any, engine: Any) -> None:
        engine.results["create"] = ID
        run("create", "img")
        options = engine.calls[0][2]
        assert not {"entrypoint", "stop_timeout", "shm_size"} & set(options)
        run("create", "--entrypoint", "", "img")
        assert engine.calls[1][2]["entrypoint"] == ()

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (NoSuchImageError("no such image: x"), 125),
            (ConflictError("name taken"), 125),
            (NoSuchVolumeError("no volume"), 125),
            (MountSpecError("bad mount"), 125),
            (CommandNotFoundError("not found"), 127),
            (RuntimeError("boom"), 125),
        ],
    )
    def test_failures_before_the_start_are_125(self, run: Any, engine: Any, error: Exception, status: int) -> None:
        engine.results["run"] = error
        assert run("run", "x").status == status

    def test_a_terminal_needs_one(self, run: Any, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terminal.os, "isatty", lambda _: False)
        done = run("run", "-it", "x")
        assert (done.status, engine.calls) == (125, [])
        assert done.err.startswith("minidock: the input device is not a TTY\n")

    def test_with_a_terminal_it_runs(self, run: Any, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terminal.os, "isatty", lambda _: True)
        engine.results["run"] = RunResult(ID)
        assert run("run", "-it", "x").status == 0


def test_explain_prints_side_purpose_and_step(run: Any, engine: Any) -> None:
    engine.results["explain"] = [
        ExplainedStep("parent", "network", "veth x"),
        ExplainedStep("child", "root file system", "mount \x1b"),
    ]
    done = run("explain", "run", "-d", "busybox", "sh")
    assert done.out.splitlines() == ["parent  network           veth x", "child   root file system  mount \\x1b"]
    assert engine.calls[0][:2] == ("explain", ("busybox", "sh"))


class TestStart:
    def test_names_are_echoed(self, run: Any, engine: Any) -> None:
        assert run("start", "a", "b").out == "a\nb\n"
        assert engine.calls == [("start", ("a",), {}), ("start", ("b",), {})]

    def test_attached_it_ends_with_the_containers_status(self, run: Any, engine: Any) -> None:
        engine.results["start"] = 3
        assert run("start", "-a", "x").status == 3
        assert engine.calls[-1][2] == {"attach": True, "stdin": None, "stdout": 1, "stderr": 2}
        run("start", "-ai", "x")
        assert engine.calls[-1][2]["stdin"] == 0
        assert run("start", "-a", "x", "y").status == 125


class TestExec:
    def test_flags_and_status(self, run: Any, engine: Any) -> None:
        engine.results["exec"] = ExecResult(7)
        assert run("exec", "-i", "-e", "A=b", "-u", "u", "-w", "/w", "--privileged", "web", "ls", "-l").status == 7
        verb, arguments, options = engine.calls[0]
        assert (verb, arguments) == ("exec", ("web", "ls", "-l"))
        assert options == {
            "detach": False,
            "stdin": 0,
            "stdout": 1,
            "stderr": 2,
            "tty": False,
            "env": ("A=b",),
            "user": "u",
            "workdir": "/w",
            "privileged": True,
        }

    def test_without_i_there_is_no_input(self, run: Any, engine: Any) -> None:
        engine.results["exec"] = ExecResult()
        run("exec", "-d", "web", "ls")
        assert engine.calls[0][2]["stdin"] is None

    def test_a_container_that_does_not_run_is_1_and_a_missing_command_127(self, run: Any, engine: Any) -> None:
        engine.results["exec"] = ConflictError("container web is not running")
        assert run("exec", "web", "ls").status == 1
        engine.results["exec"] = CommandNotFoundError("no such command")
        assert run("exec", "web", "ls").status == 127
        assert run("exec", "web").status == 1

    def test_a_terminal_needs_one(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terminal.os, "isatty", lambda _: False)
        assert run("exec", "-it", "web", "sh").status == 125


def test_stop_and_kill(run: Any, engine: Any) -> None:
    run("stop", "-s", "INT", "--time", "5", "a")
    run("kill", "a")
    run("kill", "--signal=HUP", "a")
    run("rm", "-fv", "a")
    assert engine.calls == [
        ("stop", ("a",), {"signal": "INT", "timeout": 5}),
        ("kill", ("a",), {"signal": "KILL"}),
        ("kill", ("a",), {"signal": "HUP"}),
        ("rm", ("a",), {"force": True, "volumes": True}),
    ]
    assert run("stop", "-t", "-2", "a").status == 125


def test_wait_prints_codes(run: Any, engine: Any) -> None:
    engine.results["wait"] = 137
    assert run("wait", "a", "b").out == "137\n137\n"


class TestLogs:
    def test_streams_stay_apart_and_bytes_stay_bytes(self, engine: Any) -> None:
        engine.results["logs"] = iter([LogPiece(1, 0, b"out\xff\n"), LogPiece(2, 0, b"err\n"), LogPiece(1, 0, b"2")])
        buffers = io.BytesIO(), io.BytesIO()

        class Stream:
            def __init__(self, buffer: io.BytesIO) -> None:
                self.buffer = buffer

            def flush(self) -> None:
                return

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", Stream(buffers[0]))
            patch.setattr(sys, "stderr", Stream(buffers[1]))
            assert main.run_line(["logs", "-f", "--tail", "3", "--since", "5", "-t", "web"]) == 0
        assert (buffers[0].getvalue(), buffers[1].getvalue()) == (b"out\xff\n2", b"err\n")
        assert engine.calls[0][2] == {"follow": True, "tail": 3, "timestamps": True, "since": 5 * 10**9, "until": 0}

    def test_all_lines(self, run: Any, engine: Any) -> None:
        engine.results["logs"] = iter([])
        run("logs", "-n", "all", "web")
        assert engine.calls[0][2]["tail"] == -1
        assert run("logs", "--since", "yesterday", "web").status == 125


def test_a_usage_error_of_a_verb_is_125_on_any_command(run: Any, engine: Any) -> None:
    engine.results["kill"] = UsageError("invalid signal 'X'")
    done = run("kill", "-s", "X", "a", "b")
    assert (done.status, done.err) == (125, "minidock: invalid signal 'X'\n")
    engine.results["tag"] = UsageError("invalid reference")
    assert run("tag", "A", "b").status == 125
    engine.results["ps"] = MinidockError("broken")
    assert run("ps").status == 1


def test_names_in_bytes_that_are_no_text_can_be_printed(run: Any, engine: Any) -> None:
    engine.results["volumes"] = [Volume(os.fsdecode(b"a\xff"), "/x", (), 1, False)]
    assert run("volume", "ls", "-q").out == "a\\udcff\n"


def test_the_platform_of_run_and_create_reaches_the_engine(run: Any, engine: Any) -> None:
    engine.results["create"] = "c1"
    run("create", "--platform", "linux/arm64", "img")
    run("create", "img")
    assert engine.calls[0][2]["platform"] == "linux/arm64"
    assert "platform" not in engine.calls[1][2]
