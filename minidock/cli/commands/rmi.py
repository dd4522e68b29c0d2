"""``minidock rmi``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option
from minidock.cli.session import require_name
from minidock.errors import MinidockError

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, image: tuple[str, ...], force: bool) -> int:
    status = 0
    for name in image:
        try:
            require_name(name)
            events = session.engine.rmi(name, force=force)
        except MinidockError as error:
            session.report(error)
            status = 1
            continue
        for event in events:
            session.print(f"{event.kind}: {event.name}")
    return status


COMMAND = Command(
    "rmi",
    "Remove names of images, and images without a name.",
    execute,
    options=(Option(("-f", "--force"), "Remove an image with all its names, or one that an exited container uses."),),
    arguments=(Argument("IMAGE", many=True),),
    not_yet="--no-prune --platform",
)
