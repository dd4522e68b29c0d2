"""``minidock create``: make a container without starting it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli.container_flags import ARGUMENTS, NOT_YET, OPTIONS, create_options
from minidock.cli.declare import Command

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, image: str, command: tuple[str, ...], **flags: Any) -> int:
    session.print(session.engine.create(image, *command, **create_options(flags)))
    return 0


COMMAND = Command(
    "create",
    "Create a container without starting it.",
    execute,
    options=OPTIONS,
    arguments=ARGUMENTS,
    flags_stop=True,
    failure_status=125,
    not_yet=NOT_YET,
)
