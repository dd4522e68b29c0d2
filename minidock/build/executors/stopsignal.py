"""STOPSIGNAL: the signal that stops a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Stopsignal


def apply(instruction: Stopsignal, stage: StageState) -> None:
    """Store the signal."""
    stage.config.config["StopSignal"] = instruction.signal
    stage.add_line(f"STOPSIGNAL {instruction.signal}", instruction.location)
