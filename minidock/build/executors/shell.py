"""SHELL: what runs the shell form of RUN, CMD and ENTRYPOINT from here on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Shell


def apply(instruction: Shell, stage: StageState) -> None:
    """Store the shell."""
    stage.config.config["Shell"] = list(instruction.args)
    stage.add_line(f"SHELL [{' '.join(instruction.args)}]", instruction.location)
