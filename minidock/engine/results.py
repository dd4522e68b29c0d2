"""What ``run`` and ``exec`` give back."""

from __future__ import annotations

from typing import NamedTuple


class RunResult(NamedTuple):
    """A container that was run: its ID, the status it exited with (0 when detached), and its captured output."""

    id: str
    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""


class ExecResult(NamedTuple):
    """A further command in a container: the status it exited with (0 when detached), and its captured output."""

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
