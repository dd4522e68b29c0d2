"""``minidock volume prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli import text
from minidock.cli.declare import Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, all: bool, force: bool) -> int:  # noqa: A002 - the flag's name
    """Ask, unless told not to, then remove and say what that freed."""
    which = "all volumes" if all else "anonymous volumes"
    if not force and not session.confirm(f"WARNING! This removes {which} that no container refers to."):
        return 0
    removed = session.engine.volume_prune(all=all)
    if removed.names:
        session.print("Deleted Volumes:")
        for name in removed.names:
            session.print(text.printable(name))
        session.print("")
    session.print(f"Total reclaimed space: {text.size(removed.bytes)}")
    return 0


COMMAND = Command(
    "prune",
    "Remove anonymous volumes that no container refers to.",
    execute,
    options=(
        Option(("-a", "--all"), "Remove named volumes too."),
        Option(("-f", "--force"), "Do not ask."),
    ),
    not_yet="--filter",
)
