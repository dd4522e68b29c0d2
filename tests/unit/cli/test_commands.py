"""What each command asks of the engine, and what it prints."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

import pytest

from minidock.cli import main, terminal
from minidock.cli.commands.info import lines
from minidock.engine.images import HistoryLine
from minidock.engine.listings import ExplainedStep, LogPiece, Pruned
from minidock.engine.results import ExecResult, RunResult
from minidock.errors import (
    CommandNotFoundError,
    ConflictError,
    MinidockError,
    MountSpecError,
    NoSuchContainerError,
    NoSuchImageError,
    NoSuchVolumeError,
    UsageError,
)
from minidock.store.removal import Removal
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
            "-v v1:/v --mount type=tmpfs,dst=/m --tmpfs /t:ro --read-only --keep --cap-add NET_ADMIN --cap-drop ALL "
            "--privileged --security-opt no-new-privileges --network none --init --stop-signal INT --stop-timeout 3 "
            "--shm-size 1m img x"
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
        assert run("exec", "web").status == 125

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
            assert main.main(["logs", "-f", "--tail", "3", "--since", "5", "-t", "web"]) == 0
        assert (buffers[0].getvalue(), buffers[1].getvalue()) == (b"out\xff\n2", b"err\n")
        assert engine.calls[0][2] == {"follow": True, "tail": 3, "timestamps": True, "since": 5 * 10**9, "until": 0}

    def test_all_lines(self, run: Any, engine: Any) -> None:
        engine.results["logs"] = iter([])
        run("logs", "-n", "all", "web")
        assert engine.calls[0][2]["tail"] == -1
        assert run("logs", "--since", "yesterday", "web").status == 125


class TestInspect:
    def test_kinds_are_tried_in_turn(self, run: Any, engine: Any) -> None:
        engine.results["inspect"] = lambda name: {"Id": name} if name == "c" else NoSuchContainerError("no")
        engine.results["image_inspect"] = lambda name: {"Id": "i"} if name == "i" else NoSuchImageError("no")
        engine.results["volume_inspect"] = NoSuchVolumeError("no")
        done = run("inspect", "c", "x", "i")
        assert done.status == 1
        assert [found["Id"] for found in json.loads(done.out)] == ["c", "i"]
        assert done.err.startswith("minidock: no such object: x\n")

    def test_type_narrows(self, run: Any, engine: Any) -> None:
        engine.results["image_inspect"] = NoSuchImageError("no such image: c")
        done = run("inspect", "--type", "image", "c")
        assert (done.status, done.out) == (1, "[]\n")
        assert engine.calls == [("image_inspect", ("c",), {})]
        assert run("inspect", "--type", "network", "c").status == 125

    def test_formats(self, run: Any, engine: Any) -> None:
        engine.results["inspect"] = {"Name": "/c", "State": {"Pid": 1}}
        assert run("container", "inspect", "-f", "{{.State.Pid}}", "c").out == "1\n"
        assert run("container", "inspect", "-f", "json", "c").out == '{"Name": "/c", "State": {"Pid": 1}}\n'

    def test_a_template_that_is_none_is_64_before_anything_is_asked(self, run: Any, engine: Any) -> None:
        assert run("inspect", "-f", "{{", "c").status == 64
        assert run("info", "-f", "{{.x").status == 64
        assert engine.calls == []

    def test_images_and_volumes(self, run: Any, engine: Any) -> None:
        engine.results["image_inspect"] = {"Id": "i"}
        engine.results["volume_inspect"] = {"Name": "v"}
        assert json.loads(run("image", "inspect", "i").out) == [{"Id": "i"}]
        assert run("volume", "inspect", "-f", "{{.Name}}", "v").out == "v\n"


class TestImages:
    def test_history(self, run: Any, engine: Any) -> None:
        engine.results["history"] = [
            HistoryLine("sha256:" + "a" * 64, "2020-01-01T00:00:00Z", "RUN  " + "x" * 60, 1_500_000, "note"),
            HistoryLine("", "", "FROM", 0, ""),
        ]
        out = run("history", "img").out.splitlines()
        assert out[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
        assert out[1].startswith("aaaaaaaaaaaa   ")
        assert "RUN " + "x" * 40 + "…" in out[1]
        assert "1.5MB" in out[1]
        assert out[2].startswith("<missing>      N/A")
        assert run("history", "-q", "img").out == "aaaaaaaaaaaa\n<missing>\n"
        assert "x" * 60 in run("history", "--no-trunc", "img").out

    def test_rmi_prints_what_went_and_goes_on(self, run: Any, engine: Any) -> None:
        engine.results["rmi"] = lambda name, **_: (
            [Removal("Untagged", f"{name}:latest"), Removal("Deleted", "sha256:a")]
            if name != "b"
            else ConflictError("used")
        )
        done = run("rmi", "-f", "a", "b", "c")
        assert done.status == 1
        assert done.out.splitlines() == [
            "Untagged: a:latest",
            "Deleted: sha256:a",
            "Untagged: c:latest",
            "Deleted: sha256:a",
        ]
        assert done.err == "minidock: used\n"

    def test_tag_is_silent(self, run: Any, engine: Any) -> None:
        assert run("tag", "a", "b").out == ""
        assert engine.calls == [("tag", ("a", "b"), {})]

    def test_import_and_bootstrap_print_ids(self, run: Any, engine: Any) -> None:
        class Made:
            id = "sha256:f"

        engine.results["import_image"] = engine.results["bootstrap"] = Made()
        assert run("import", "-m", "note", "x.tar", "name").out == "sha256:f\n"
        assert run("image", "bootstrap", "-t", "bb", "busybox").out == "sha256:f\n"
        assert engine.calls == [
            ("import_image", ("x.tar",), {"name": "name", "message": "note"}),
            ("bootstrap", ("busybox",), {"name": "bb", "force": False, "quiet": False}),
        ]


class TestBuild:
    def test_flags(self, run: Any, engine: Any) -> None:
        engine.results["build"] = "sha256:b"
        assert (
            run(
                "build", "-t", "a", "-t", "b", "-f", "D", "--build-arg", "A=1", "--target", "t", "--no-cache", "ctx"
            ).out
            == ""
        )
        assert engine.calls == [
            (
                "build",
                ("ctx",),
                {
                    "text": None,
                    "dockerfile": "D",
                    "tags": ("a", "b"),
                    "build_args": ("A=1",),
                    "target": "t",
                    "no_cache": True,
                    "progress": 2,
                    "quiet": False,
                },
            )
        ]

    def test_quiet_prints_the_id(self, run: Any, engine: Any) -> None:
        engine.results["build"] = "sha256:b"
        assert run("build", "-q", ".").out == "sha256:b\n"
        assert run("build", "--progress", "quiet", ".").out == "sha256:b\n"
        assert engine.calls[0][2]["quiet"] is True

    def test_a_dockerfile_from_standard_input(self, run: Any, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("FROM scratch\n"))
        run("build", "-f", "-", ".")
        assert (engine.calls[0][2]["text"], engine.calls[0][2]["dockerfile"]) == ("FROM scratch\n", "")

    @pytest.mark.parametrize(
        "line", [("-",), ("https://x/y.git",), ("--progress", "tty", "."), ("--secret", "id=x", ".")]
    )
    def test_what_is_not_there_yet(self, run: Any, engine: Any, line: tuple[str, ...]) -> None:
        done = run("build", *line)
        assert (done.status, engine.calls) == (125, [])
        assert "not there yet" in done.err


class TestVolumes:
    def test_create(self, run: Any, engine: Any) -> None:
        engine.results["volume_create"] = Volume("data", "/x", (), 1, False)
        assert run("volume", "create", "--label", "a=b", "data").out == "data\n"
        assert engine.calls == [("volume_create", ("data",), {"labels": ("a=b",)})]
        run("volume", "create")
        assert engine.calls[1][1] == ("",)
        assert run("volume", "create", "-d", "nfs", "x").status == 125

    def test_rm(self, run: Any, engine: Any) -> None:
        assert run("volume", "rm", "-f", "a", "b").out == "a\nb\n"
        assert engine.calls[0] == ("volume_rm", ("a",), {"force": True})

    def test_prune_asks(self, run: Any, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine.results["volume_prune"] = Pruned(("a", "b"), 1_500_000)
        monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
        done = run("volume", "prune")
        assert (done.out, engine.calls) == ("", [])
        assert "Are you sure you want to continue? [y/N]" in done.err
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        assert run("volume", "prune", "-a").out == "Deleted Volumes:\na\nb\n\nTotal reclaimed space: 1.5MB\n"
        assert engine.calls == [("volume_prune", (), {"all": True})]

    def test_prune_by_force(self, run: Any, engine: Any) -> None:
        engine.results["volume_prune"] = Pruned((), 0)
        assert run("volume", "prune", "-f").out == "Total reclaimed space: 0B\n"


INFO: dict[str, Any] = {
    "Containers": 3,
    "ContainersRunning": 1,
    "ContainersPaused": 1,
    "ContainersStopped": 1,
    "Images": 2,
    "ServerVersion": "0",
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"]],
    "LoggingDriver": "local",
    "Plugins": {"Volume": ["local"], "Network": ["bridge", "host"]},
    "CgroupDriver": "cgroupfs",
    "CgroupVersion": "2",
    "Runtimes": {"minidock": {}},
    "InitBinary": "",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
    "MemTotal": 2_093_796_556,
    "RootFree": 82_280_000_000,
    "DockerRootDir": "/var/lib/minidock",
    "Debug": False,
    "Warnings": ["WARNING: No swap limit support", "other"],
}


class TestInfo:
    def test_the_block(self) -> None:
        assert list(lines(INFO)) == [
            " Containers: 3",
            "  Running: 1",
            "  Paused: 1",
            "  Stopped: 1",
            " Images: 2",
            " Server Version: 0",
            " Storage Driver: overlay2",
            "  Backing Filesystem: extfs",
            " Logging Driver: local",
            " Plugins:",
            "  Volume: local",
            "  Network: bridge host",
            " Cgroup Driver: cgroupfs",
            " Cgroup Version: 2",
            " Runtimes: minidock",
            " Security Options:",
            "  seccomp",
            "   Profile: builtin",
            "  cgroupns",
            " Total Memory: 1.95GiB",
            " Root Dir: /var/lib/minidock",
            " Root Dir Free: 82.28GB",
            " Debug Mode: false",
        ]

    def test_warnings_go_to_standard_error(self, run: Any, engine: Any) -> None:
        engine.results["info"] = INFO
        done = run("info")
        assert done.err == "WARNING: No swap limit support\nWARNING: other\n"
        assert done.out.startswith(" Containers: 3\n")

    def test_json_and_templates(self, run: Any, engine: Any) -> None:
        engine.results["info"] = INFO
        assert json.loads(run("info", "-f", "json").out) == INFO
        assert json.loads(run("info", "--format", "{{json .}}").out) == INFO
        assert run("info", "-f", "{{.Driver}} {{.ContainersRunning}}").out == "overlay2 1\n"


def test_version(run: Any, engine: Any) -> None:
    engine.results["version"] = {"Version": "0.1", "Os": "linux"}
    assert run("version").out == "Version:         0.1\nOS:              linux\n"
    assert run("version", "-f", "{{.Version}}").out == "0.1\n"


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
