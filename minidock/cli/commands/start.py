"""``minidock start``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option
from minidock.errors import UsageError

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, container: tuple[str, ...], attach: bool, interactive: bool) -> int:
    """Start the containers, or one of them attached, ending with its status."""
    if not attach and not interactive:
        return session.each(container, session.engine.start)
    if len(container) != 1:
        raise UsageError("only one container can be started and attached to at once")
    status = session.engine.start(container[0], attach=True, stdin=0 if interactive else None, stdout=1, stderr=2)
    return status or 0


COMMAND = Command(
    "start",
    "Start containers that were created or have exited.",
    execute,
    options=(
        Option(("-a", "--attach"), "Print the container's output until it exits."),
        Option(("-i", "--interactive"), "Attach, and pass standard input on."),
    ),
    arguments=(Argument("CONTAINER", many=True),),
    not_yet="--detach-keys --checkpoint --checkpoint-dir",
)
