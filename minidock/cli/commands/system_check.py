"""``minidock system check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli import text
from minidock.cli.declare import Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session
    from minidock.engine.findings import CheckResult


def execute(session: Session, *, repair: bool) -> int:
    """A line for each problem, then what was looked at."""
    result = session.engine.check(repair=repair)
    for problem in result.problems:
        remedy = f"; {problem.remedy}" if problem.remedy else ""
        session.print(text.printable(f"{problem.what}{remedy}"))
    session.print(_summary(result))
    unneeded = result.unneeded
    if unneeded.blobs or unneeded.layers:
        blobs = f"{_count(unneeded.blobs, 'blob')} ({text.size(unneeded.size)})"
        layers = _count(unneeded.layers, "layer")
        session.print(f"Not needed: {blobs} and {layers}, which go when an image is next removed")
    return 1 if result.left else 0


def _summary(result: CheckResult) -> str:
    looked = (
        f"{_count(result.images, 'image')}, {_count(result.containers, 'container')}, "
        f"{_count(result.blobs, 'blob')} ({text.size(result.size)})"
    )
    repaired = len(result.problems) - result.left
    found = _count(result.left, "problem") if result.left else "all is well"
    return f"Checked {looked}: {found}" + (f", {repaired} repaired" if repaired else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


COMMAND = Command(
    "check",
    "Look for damage in all that is stored.",
    execute,
    options=(
        Option(("--repair",), "Remove what is damaged and can be made again; never an image or a container's data."),
    ),
)
