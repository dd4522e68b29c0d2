"""``minidock image verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli import text
from minidock.cli.declare import Argument, Command, Option
from minidock.cli.session import require_name
from minidock.errors import MinidockError

if TYPE_CHECKING:
    from minidock.cli.session import Session
    from minidock.engine.findings import Verdict


def execute(session: Session, *, image: tuple[str, ...], quiet: bool) -> int:
    """A line for each image that is whole, and one for each problem of the others."""
    if not image:
        return max((_tell(session, verdict, quiet=quiet) for verdict in session.engine.verify()), default=0)
    status = 0
    for name in image:
        try:
            require_name(name)
            verdicts = session.engine.verify(name)
        except MinidockError as error:
            session.report(error)
            status = 1
            continue
        for verdict in verdicts:
            status |= _tell(session, verdict, quiet=quiet)
    return status


def _tell(session: Session, verdict: Verdict, *, quiet: bool) -> int:
    name = f"{', '.join(verdict.names) or '<none>'} ({text.short_id(verdict.id)})"
    for problem in verdict.problems:
        remedy = f"; {problem.remedy}" if problem.remedy else ""
        session.print(text.printable(f"{name}: {problem.what}{remedy}"))
    if not verdict.problems and not quiet:
        session.print(text.printable(f"{name}: ok"))
    return 1 if verdict.problems else 0


COMMAND = Command(
    "verify",
    "Check that images, all when none is named, are whole.",
    execute,
    options=(Option(("-q", "--quiet"), "Print problems only."),),
    arguments=(Argument("IMAGE", many=True, optional=True),),
)
