"""ENV: variables for the steps after it and for the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Env


def apply(instruction: Env, stage: StageState) -> None:
    """Set the variables for what follows and for the image."""
    for pair in instruction.pairs:
        stage.set_env(pair.key, pair.value)
    stage.add_line("ENV " + " ".join(f"{pair.key}={pair.value}" for pair in instruction.pairs), instruction.location)
