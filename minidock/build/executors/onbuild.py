"""ONBUILD: an instruction kept for the images that are built from this one. It leaves no line of history."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Onbuild


def apply(instruction: Onbuild, stage: StageState) -> None:
    """Store the text."""
    stage.config.config["OnBuild"] = [*(stage.config.config.get("OnBuild") or []), instruction.text]
