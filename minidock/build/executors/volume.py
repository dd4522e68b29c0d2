"""VOLUME: directories that get a volume of their own at run time. What later steps write there is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Volume


def apply(instruction: Volume, stage: StageState) -> None:
    """Add the paths to those that are there."""
    volumes = dict(stage.config.config.get("Volumes") or {})
    volumes.update((path, {}) for path in instruction.paths)
    stage.config.config["Volumes"] = volumes
    stage.add_line(f"VOLUME [{' '.join(instruction.paths)}]", instruction.location)
