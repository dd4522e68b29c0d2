"""``minidock volume rm``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, volume: tuple[str, ...], force: bool) -> int:
    engine = session.engine
    return session.each(volume, lambda name: engine.volume_rm(name, force=force))


COMMAND = Command(
    "rm",
    "Remove volumes that no container refers to.",
    execute,
    options=(Option(("-f", "--force"), "A volume that does not exist is no failure."),),
    arguments=(Argument("VOLUME", many=True),),
)
