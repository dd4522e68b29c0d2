"""``minidock rm``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, container: tuple[str, ...], force: bool, volumes: bool) -> int:
    engine = session.engine
    return session.each(container, lambda name: engine.rm(name, force=force, volumes=volumes))


COMMAND = Command(
    "rm",
    "Remove containers.",
    execute,
    options=(
        Option(("-f", "--force"), "Kill a running container first."),
        Option(("-v", "--volumes"), "Remove the container's anonymous volumes too."),
    ),
    arguments=(Argument("CONTAINER", many=True),),
    not_yet="-l --link",
)
