"""``minidock volume inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option
from minidock.cli.inspection import inspect_each

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, volume: tuple[str, ...], format: str | None) -> int:  # noqa: A002 - the flag's name
    return inspect_each(session, volume, session.engine.volume_inspect, template=format)


COMMAND = Command(
    "inspect",
    "Print what is known of volumes, as JSON.",
    execute,
    options=(Option(("-f", "--format"), "json, or a template.", "TEMPLATE"),),
    arguments=(Argument("VOLUME", many=True),),
)
