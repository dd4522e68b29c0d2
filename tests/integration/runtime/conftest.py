"""A runner for the runtime alone: a busybox tree, an upper directory, and no engine above."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minidock.kernel import process as kp
from minidock.log import Log
from minidock.model.container import Record, Settings
from minidock.model.mounts import Mount
from minidock.model.spec import Process, container_spec, step_spec
from minidock.model.steps import OverlayMount, RootMount
from minidock.runtime.context import Stdio
from minidock.runtime.launch import Started, start
from minidock.runtime.plan import Plan, available_capabilities, plan
from minidock.runtime.step import StepResult, cgroup_name, run_to_exit


class Outcome(NamedTuple):
    """What a step printed and how it ended."""

    status: int
    output: str
    stubs: tuple[str, ...]


class Sandbox:
    """One writable layer over ``lower``; specs are step specs that the test may change."""

    def __init__(self, folder: Path, lower: Path) -> None:
        self.folder = folder
        self.lower = lower
        self.root: RootMount | None = None
        for name in ("upper", "work", "rootfs", "cache"):
            (folder / name).mkdir()

    @property
    def upper(self) -> Path:
        return self.folder / "upper"

    def spec(
        self, *args: str, env: tuple[str, ...] = (), cwd: str = "/", user: str = "", **more: Any
    ) -> dict[str, Any]:
        more.setdefault("network", "none")
        more.setdefault("files", ())
        process = Process(args, env, cwd, user)
        return step_spec(process, rootfs=str(self.folder / "rootfs"), available=available_capabilities(), **more)

    def plan(self, spec: dict[str, Any]) -> Plan:
        root = self.root or OverlayMount((str(self.lower),), str(self.upper), str(self.folder / "work"))
        return plan(spec, root=root, cgroup=cgroup_name(), seccomp_cache=str(self.folder / "cache"))

    def run(self, *args: str, change: Callable[[dict[str, Any]], None] | None = None, **options: Any) -> Outcome:
        """Run a command to its end in the default sandbox."""
        spec = self.spec(*args, **options)
        if change:
            change(spec)
        return self.finish(spec)

    def container(self, script: str, *mounts: Mount, files: tuple[tuple[str, str], ...] = (), **more: Any) -> Outcome:
        """Run a shell script with the spec of a container; ``more`` are its settings."""
        settings = Settings("image", mounts=mounts, network="none", **more)
        record = Record(
            id="c" * 64,
            name="one",
            created=1,
            image="image",
            image_id="",
            diff_ids=(),
            driver="overlay2",
            args=("sh", "-c", script),
            env=(),
            workdir=settings.workdir,
            user=settings.user,
            hostname="one",
            labels=(),
            mounts=mounts,
            anonymous=(),
            exposed_ports=(),
            stop_signal="",
            settings=settings,
        )
        spec = container_spec(
            record,
            rootfs=str(self.folder / "rootfs"),
            files=files,
            volume_path=lambda name: str(self.folder / name),
            available=available_capabilities(),
        )
        return self.finish(spec)

    def finish(self, spec: dict[str, Any]) -> Outcome:
        chunks: list[bytes] = []
        result: StepResult = run_to_exit(self.plan(spec), on_output=chunks.append, log=Log())
        return Outcome(result.status, b"".join(chunks).decode(errors="surrogateescape"), result.stubs)

    def sh(self, script: str, **options: Any) -> Outcome:
        return self.run("sh", "-c", script, **options)


@pytest.fixture
def sandbox(tmp_path: Path, busybox_tree: Path) -> Sandbox:
    return Sandbox(tmp_path, busybox_tree)


class Running:
    """A started command; ``output`` is read from its pipe."""

    def __init__(self, started: Started, output: int) -> None:
        self.started = started
        self.output = output

    def read_line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            chunk = os.read(self.output, 1)
            assert chunk, f"end of output after {line!r}"
            line += chunk
        return line.decode().rstrip("\n")


@pytest.fixture
def running(sandbox: Sandbox) -> Any:
    """Start commands that run on; they are killed and their cgroups removed after the test."""
    made: list[Running] = []

    def begin(*args: str) -> Running:
        read, write = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        started = start(sandbox.plan(sandbox.spec(*args)), stdio=Stdio(null, write, write), log=Log())
        os.close(write)
        os.close(null)
        made.append(Running(started, read))
        return made[-1]

    yield begin
    for item in made:
        item.started.cgroup.kill()
        kp.wait_pidfd(item.started.pidfd)
        os.close(item.started.pidfd)
        os.close(item.output)
        item.started.cgroup.remove()
