"""MAINTAINER: the image's author."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Maintainer


def apply(instruction: Maintainer, stage: StageState) -> None:
    """Store the author."""
    stage.config.raw["author"] = instruction.author
    stage.add_line(f"MAINTAINER {instruction.author}", instruction.location)
