"""A build that is killed leaves no image, no process and no lock, and what it had finished serves the next one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.store.layout import DataRoot
from minidock.store.staging import sweep

TEXT = "FROM busybox\nRUN echo one > /one\nRUN echo started; exec sleep {}\n"


def sleepers(seconds: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if command == f"sleep\0{seconds}\0".encode():
            found.append(pid)
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_killed_in_a_run(minidock: Any, context: Callable[..., Path], how: signal.Signals) -> None:
    seconds = f"98765.{how.value}"
    folder = context(TEXT.format(seconds))
    build = minidock.popen("build", "-t", "t", folder)
    deadline = time.monotonic() + 30
    while not sleepers(seconds):
        assert time.monotonic() < deadline, "the step did not start"
        assert build.poll() is None
        time.sleep(0.02)
    build.send_signal(how)
    _, err = build.communicate(timeout=10)
    assert b"Traceback" not in err
    deadline = time.monotonic() + 5
    while sleepers(seconds):
        assert time.monotonic() < deadline, "the step outlives its build"
        time.sleep(0.02)
    root = DataRoot(str(minidock.root))
    assert (sweep(root) > 0) == (how == signal.SIGKILL), "only a killed build leaves things behind, and those unlocked"
    assert build.returncode == (-how if how == signal.SIGKILL else 128 + how)
    assert os.listdir(root.tmp) == []
    assert "t" not in minidock.out("images").split()
    (folder / "Dockerfile").write_text(TEXT.format(0))
    again = minidock.build(folder, "-t", "t")
    assert again.count("CACHED") == 2, "the base and the finished step"
