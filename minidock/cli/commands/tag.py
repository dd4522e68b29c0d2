"""``minidock tag``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, source: str, target: str) -> int:
    session.engine.tag(source, target)
    return 0


COMMAND = Command(
    "tag",
    "Give an image a further name.",
    execute,
    arguments=(Argument("SOURCE"), Argument("TARGET")),
)
