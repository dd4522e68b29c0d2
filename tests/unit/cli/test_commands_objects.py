"""What the commands on images, volumes and the engine itself ask of the engine, and what they print."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from minidock.cli.commands.info import lines
from minidock.engine.images import HistoryLine
from minidock.engine.listings import Pruned
from minidock.errors import (
    ConflictError,
    InvalidReferenceError,
    NoSuchContainerError,
    NoSuchImageError,
    NoSuchVolumeError,
)
from minidock.store.removal import Removal
from minidock.volumes.volumes import Volume


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
        engine.results["inspect"] = NoSuchContainerError("no such container")
        engine.results["image_inspect"] = InvalidReferenceError("invalid image reference")
        engine.results["volume_inspect"] = NoSuchVolumeError("no such volume")
        assert "minidock: no such object: ./X\n" in run("inspect", "./X").err

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
        assert out[0].split() == ["IMAGE", "STEP", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
        assert out[1].startswith("aaaaaaaaaaaa   ")
        assert "RUN " + "x" * 40 + "…" in out[1]
        assert "1.5MB" in out[1]
        assert out[2].split()[:3] == ["<missing>", "~1", "N/A"]
        assert run("history", "--format", "{{.Step}}", "img").out == "~0\n~1\n"
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
                "build",
                "-t",
                "a",
                "-t",
                "b",
                "-f",
                "D",
                "--build-arg",
                "A=1",
                "--target",
                "t",
                "--no-cache",
                "--ulimit",
                "core=0",
                "ctx",
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
                    "ulimits": ("core=0",),
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

    def test_a_dockerfile_from_standard_input(self, run: Any, engine: Any, tmp_path: Path) -> None:
        file, before = tmp_path / "Dockerfile", os.dup(0)
        file.write_bytes(b"FROM scratch\n# \xff\n")
        try:
            with open(file, "rb") as source:
                os.dup2(source.fileno(), 0)
            run("build", "-f", "-", ".")
        finally:
            os.dup2(before, 0)
            os.close(before)
        assert (engine.calls[0][2]["text"], engine.calls[0][2]["dockerfile"]) == ("FROM scratch\n# \udcff\n", "")

    @pytest.mark.parametrize("line", [("-t", "UPPER"), ("-t", ""), ("--build-arg", ""), ("--build-arg", "=x")])
    def test_a_value_that_makes_no_sense_is_refused_before_anything_is_done(
        self, run: Any, engine: Any, line: tuple[str, str]
    ) -> None:
        done = run("build", *line, ".")
        assert (done.status, engine.calls) == (125, [])
        assert done.err.startswith(f"minidock: invalid value {line[1]!r} for --")

    @pytest.mark.parametrize("line", [("--push", "."), ("--cgroup-parent", "x", ".")])
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
