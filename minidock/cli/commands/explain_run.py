"""``minidock explain run``: what ``run`` would do, step by step, without doing any of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli.container_flags import ARGUMENTS, NOT_YET, OPTIONS, create_options
from minidock.cli.declare import Command, Option
from minidock.cli.text import printable

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(
    session: Session,
    *,
    image: str,
    command: tuple[str, ...],
    detach: bool,  # noqa: ARG001 - a command line of run may be taken as it is
    **flags: Any,
) -> int:
    """Print the steps, in three columns: where each runs, what it is for, what it does."""
    steps = session.engine.explain(image, *command, **create_options(flags))
    width = max(len(step.why) for step in steps)
    for step in steps:
        session.print(f"{step.where:<6}  {step.why:<{width}}  {printable(step.text)}")
    return 0


COMMAND = Command(
    "run",
    "Print the steps of a run, each with what it is for, without doing them.",
    execute,
    options=(Option(("-d", "--detach"), "As in run; it changes no step."), *OPTIONS),
    arguments=ARGUMENTS,
    flags_stop=True,
    failure_status=125,
    not_yet=NOT_YET,
)
