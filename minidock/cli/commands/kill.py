"""``minidock kill``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, container: tuple[str, ...], signal: str) -> int:
    engine = session.engine
    return session.each(container, lambda name: engine.kill(name, signal=signal))


COMMAND = Command(
    "kill",
    "Send a signal to the main process of running containers.",
    execute,
    options=(Option(("-s", "--signal"), "The signal, by name or number.", "SIGNAL", default="KILL"),),
    arguments=(Argument("CONTAINER", many=True),),
)
