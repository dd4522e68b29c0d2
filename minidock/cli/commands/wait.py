"""``minidock wait``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, container: tuple[str, ...]) -> int:
    return session.each(container, session.engine.wait, show=str)


COMMAND = Command(
    "wait",
    "Wait until containers have exited, and print their exit codes.",
    execute,
    arguments=(Argument("CONTAINER", many=True),),
)
