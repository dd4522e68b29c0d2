"""Whoever dies: nothing runs on and nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from minidock.kernel import process as kp
from minidock.log import Log
from minidock.runtime.step import cgroup_name, remove_stale_cgroups, run_to_exit


def processes_with(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def test_sigkill_of_the_builder_kills_the_step(sandbox) -> None:
    mark = f"98765{os.getpid()}"

    def build() -> int:
        plan = sandbox.plan(sandbox.spec("sleep", mark, user="bob"))
        run_to_exit(plan, on_output=lambda _: None, log=Log())
        return 0

    with kp.spawn(build) as builder:
        deadline = time.monotonic() + 10
        while not processes_with(mark) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert processes_with(mark)
        os.kill(builder.pid, signal.SIGKILL)
        builder.wait()
    deadline = time.monotonic() + 5
    while processes_with(mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes_with(mark) == []
    assert left_cgroups()
    while left_cgroups() and time.monotonic() < deadline:
        # The killed have no command line any more, but may be in their cgroup still.
        remove_stale_cgroups()
        time.sleep(0.01)
    assert left_cgroups() == []


def left_cgroups() -> list[Path]:
    """Groups of steps in every hierarchy: version 1 and the one beside it are a level deeper than version 2 alone."""
    mounted = Path("/sys/fs/cgroup")
    found = [*mounted.glob("minidock/step-*"), *mounted.glob("*/minidock/step-*")]
    return [path for path in found if f"-{os.getpid()}-" not in path.name]


def test_an_exception_in_the_caller_kills_the_step(sandbox) -> None:
    mark = f"87654{os.getpid()}"

    class StopError(Exception):
        pass

    def stop(_: bytes) -> None:
        raise StopError

    plan = sandbox.plan(sandbox.spec("sh", "-c", f"echo x; exec sleep {mark}"))
    with contextlib.suppress(StopError):
        run_to_exit(plan, on_output=stop, log=Log())
    assert processes_with(mark) == []
    assert list(Path("/sys/fs/cgroup").glob(f"*/minidock/{cgroup_name()}-*")) == []


def test_background_children_end_with_the_command(sandbox) -> None:
    mark = f"76543{os.getpid()}"
    assert sandbox.sh(f"sleep {mark} & echo done").output == "done\n"
    assert processes_with(mark) == []
