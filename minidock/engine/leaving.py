"""The end of a command's process."""

from __future__ import annotations

from typing import NoReturn

from minidock.kernel.process import exit_now


def leave(status: int) -> NoReturn:
    """End this process at once, without taking the interpreter apart: that would cost a run a tenth of its time.

    Nothing may be left to flush or to finish: exit handlers don't run.
    """
    exit_now(status)
