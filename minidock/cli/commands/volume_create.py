"""``minidock volume create``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option
from minidock.errors import UsageError

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, name: str | None, label: tuple[str, ...], driver: str) -> int:
    if driver != "local":
        raise UsageError(f"volume driver {driver!r} is not there", hint="the driver is local")
    session.print(session.engine.volume_create(name or "", labels=label).name)
    return 0


COMMAND = Command(
    "create",
    "Create a volume; one that exists already is success.",
    execute,
    options=(
        Option(("--label",), "Set a label.", "NAME[=VALUE]", many=True),
        Option(("-d", "--driver"), "The volume driver: local.", "NAME", default="local"),
    ),
    arguments=(Argument("NAME", optional=True),),
    not_yet="-o --opt",
)
