"""``minidock stop``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.container_flags import read_seconds
from minidock.cli.declare import Argument, Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, container: tuple[str, ...], signal: str | None, timeout: int | None) -> int:
    engine = session.engine
    return session.each(container, lambda name: engine.stop(name, signal=signal or "", timeout=timeout))


COMMAND = Command(
    "stop",
    "Ask containers to stop, and kill those that do not in time.",
    execute,
    options=(
        Option(("-s", "--signal"), "Send this signal instead of the container's own.", "SIGNAL"),
        Option(("-t", "--timeout", "--time"), "Seconds until SIGKILL; -1 for ever.", "SECONDS", read=read_seconds),
    ),
    arguments=(Argument("CONTAINER", many=True),),
)
