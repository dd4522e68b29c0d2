"""Real containers whose monitor or starter is killed at any moment: afterwards the host is as it was."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import cgroups


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def traces(container_id: str) -> list[str]:
    """What is left of a container in cgroups and leases."""
    layout = cgroups.detect()
    parents = [f"{mount}/{cgroups.PARENT}" for mount in {*layout.controllers.values(), layout.unified} - {""}]
    found = [f"{parent}/{name}" for parent in parents if os.path.isdir(parent) for name in os.listdir(parent)]
    leases = Path("/run/minidock/net/minidock0")
    owners = [str(path) for path in leases.iterdir() if container_id in path.read_text()] if leases.is_dir() else []
    return [path for path in found if container_id in path] + owners


@pytest.mark.parametrize("remove", [False, True], ids=["stays", "rm"])
@pytest.mark.parametrize("seed", range(6))
def test_a_monitor_killed_at_a_random_moment(minidock: Any, seed: int, remove: bool) -> None:
    containers = minidock.root / "containers"
    arguments = [
        "run",
        *(["--rm"] if remove else []),
        "-v",
        "vol:/d",
        "busybox",
        "sh",
        "-c",
        "echo one; sleep 0.1; exit 3",
    ]
    process = minidock.popen(*arguments)
    deadline = time.monotonic() + 10
    while not (born := children(process.pid)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
    ids = [name for name in os.listdir(containers) if len(name) == 64]
    time.sleep(random.Random(seed).uniform(0, 0.25))
    with suppress(ProcessLookupError):
        for pid in born:
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=20)
    assert process.returncode in {3, 125, 137}
    left = minidock.out("ps", "-aq").split()
    assert len(left) <= (0 if remove else 1)
    for container_id in ids:
        assert traces(container_id) == []
    if left:
        assert minidock.inspect(left[0])["State"]["Status"] in {"created", "exited"}
        assert minidock("start", "-a", left[0], status=3).stdout == "one\n"
        minidock("rm", left[0])
    assert [name for name in os.listdir(containers) if len(name) == 64] == []


@pytest.mark.parametrize("seed", range(6))
def test_a_starter_killed_at_a_random_moment(minidock: Any, seed: int) -> None:
    """Without ``--rm``: either nothing, or a created container, or one that runs to its end with its output kept."""
    process = minidock.popen("run", "--name", "it", "--network", "none", "busybox", "sh", "-c", "sleep 0.1; echo done")
    time.sleep(random.Random(seed).uniform(0, 0.25))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    if minidock.out("ps", "-aq") == "":
        return
    if minidock.inspect("it")["State"]["Status"] == "created":
        # The monitor may be on its way still.
        time.sleep(0.5)
    if minidock.inspect("it")["State"]["Status"] != "created":
        assert minidock.out("wait", "it") == "0"
        assert minidock.out("logs", "it") == "done"
    minidock("rm", "it")
