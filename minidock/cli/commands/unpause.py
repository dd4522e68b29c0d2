"""``minidock unpause``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, container: tuple[str, ...]) -> int:
    return session.each(container, session.engine.unpause)


COMMAND = Command(
    "unpause",
    "Let the processes of paused containers go on.",
    execute,
    arguments=(Argument("CONTAINER", many=True),),
)
