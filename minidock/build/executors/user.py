"""USER: who the later steps and the container run as."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.model.users import parse_user

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import User


def apply(instruction: User, stage: StageState) -> None:
    """Raises UsageError for a text that can name nobody; whether the image has the name shows when it is used."""
    parse_user(instruction.user)
    stage.config.config["User"] = instruction.user
    stage.add_line(f"USER {instruction.user}", instruction.location)
