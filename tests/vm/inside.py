"""Tests of what only the virtual machine has; they run in it, and say so where it is something else."""

from __future__ import annotations

import os
from pathlib import Path

from minidock.kernel import cgroups


def test_this_is_the_machine() -> None:
    assert os.uname().release.startswith("6.1.")
    layout = cgroups.detect()
    assert not layout.controllers
    assert layout.unified == "/sys/fs/cgroup"


def test_run(minidock) -> None:
    assert minidock.out("run", "--rm", "busybox", "echo", "hello") == "hello"
