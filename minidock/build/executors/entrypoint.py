"""ENTRYPOINT: the program that a container runs. It drops a CMD that the base image brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.command import quoted, vector

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Entrypoint


def apply(instruction: Entrypoint, stage: StageState) -> None:
    """Store the entry point and drop a CMD that is not this stage's own."""
    args = vector(instruction, stage.shell)
    stage.config.config["Entrypoint"] = list(args)
    if not stage.cmd_set:
        stage.config.config.pop("Cmd", None)
    stage.add_line(f"ENTRYPOINT {quoted(args)}", instruction.location)
