"""LABEL: metadata of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Label


def apply(instruction: Label, stage: StageState) -> None:
    """Add the labels; a later value replaces an earlier one."""
    labels = dict(stage.config.config.get("Labels") or {})
    labels.update((pair.key, pair.value) for pair in instruction.pairs)
    stage.config.config["Labels"] = labels
    stage.add_line("LABEL " + " ".join(f"{pair.key}={pair.value}" for pair in instruction.pairs), instruction.location)
