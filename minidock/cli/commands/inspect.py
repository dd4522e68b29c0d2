"""``minidock inspect``: containers, images and volumes as JSON, in docker's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli.declare import Argument, Command, Option
from minidock.cli.inspection import inspect_each
from minidock.errors import InvalidReferenceError, NotFoundError, UsageError

if TYPE_CHECKING:
    from minidock.cli.session import Session

KINDS = ("container", "image", "volume")


def execute(session: Session, *, name: tuple[str, ...], type: str | None, format: str | None) -> int:  # noqa: A002 - the flags' names
    """Print what is known of each name; without ``--type`` the first kind that has it counts."""
    engine = session.engine
    look_ups = {"container": engine.inspect, "image": engine.image_inspect, "volume": engine.volume_inspect}
    if type is not None and type not in KINDS:
        raise UsageError(f"invalid type {type!r}", hint=f"the types are {', '.join(KINDS)}")

    def look_up(wanted: str) -> dict[str, Any]:
        for kind in (type,) if type else KINDS:
            try:
                return look_ups[kind](wanted)
            except (NotFoundError, InvalidReferenceError):
                if type:
                    raise
        raise NotFoundError(f"no such object: {wanted}", hint="there is no container, image or volume of that name")

    return inspect_each(session, name, look_up, template=format)


COMMAND = Command(
    "inspect",
    "Print what is known of containers, images or volumes, as JSON.",
    execute,
    options=(
        Option(("-f", "--format"), "json, or a template.", "TEMPLATE"),
        Option(("--type",), "Look for this kind only: container, image or volume.", "TYPE"),
    ),
    arguments=(Argument("NAME", many=True),),
    not_yet="-s --size",
)
