"""``minidock container inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option
from minidock.cli.inspection import inspect_each

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, container: tuple[str, ...], format: str | None) -> int:  # noqa: A002 - the flag's name
    return inspect_each(session, container, session.engine.inspect, template=format)


COMMAND = Command(
    "inspect",
    "Print what is known of containers, as JSON.",
    execute,
    options=(Option(("-f", "--format"), "json, or a template.", "TEMPLATE"),),
    arguments=(Argument("CONTAINER", many=True),),
)
