"""CMD: the default command, or the arguments of ENTRYPOINT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.command import quoted, vector

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Cmd


def apply(instruction: Cmd, stage: StageState) -> None:
    """Store the command; from here on it is this stage's own."""
    args = vector(instruction, stage.shell)
    stage.config.config["Cmd"] = list(args)
    stage.cmd_set = True
    stage.add_line(f"CMD {quoted(args)}", instruction.location)
