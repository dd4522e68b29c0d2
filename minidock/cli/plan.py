"""``build --plan`` and ``explain build``: what a build would do, printed."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from minidock.cli.text import cut, json_text, printable, size
from minidock.model.forecast import CACHED, MAY_RUN, RUNS, StepForecast

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from minidock.cli.session import Session

WOULD_RUN = 10
_TITLE = 60
_WIDTH = 100
_INDENT = "    "
_MADE = {
    "FROM": (
        "The layers of the base image, read-only and shared by all images that stand on it: nothing is copied to "
        "begin with them."
    ),
    "RUN": (
        "The command runs in a container on the layers so far, with a writable layer above them: what it changes is "
        "copied there first (copy on write). That layer, with only what differs, becomes the next one."
    ),
    "COPY": "The files become a layer of their own on the layers so far, with only what differs from them.",
    "ADD": (
        "The files become a layer of their own on the layers so far, with only what differs from them; a tar archive "
        "of the context is unpacked, what lies behind an URL is fetched."
    ),
    "WORKDIR": "The directory of the commands that follow; a layer with it is made if it is missing.",
}
_FORECASTS = {
    CACHED: "Nothing of it is done: it was done before on the same layers with the same inputs, and its layer is here.",
    RUNS: "It is done: ",
    MAY_RUN: "Whether it is done shows only when the steps before it have run: ",
}


def print_plan(session: Session, steps: Sequence[StepForecast], *, form: str, phrases: bool) -> int:
    """Print a forecast as a table, with ``phrases`` as text, in the form "rawjson" as an object a line, in the form
    "quiet" not at all; the exit status, 10 if something would run."""
    if form == "rawjson":
        for step in steps:
            session.print(json_text(step._asdict()))
    elif form != "quiet" and phrases:
        _print_text(session, steps)
    elif form != "quiet":
        _print_table(session, steps)
    return 0 if all(step.forecast == CACHED for step in steps) else WOULD_RUN


def _print_table(session: Session, steps: Sequence[StepForecast]) -> None:
    rows = [("STEP", "FORECAST", "COPIES", "LAYER", "WHY")]
    rows += [(_title(step), step.forecast, _copies(step), _layer(step), "; ".join(step.why)) for step in steps]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        session.print("   ".join([*cells, printable(row[4])]).rstrip())
    session.print(_summary(steps))


def _print_text(session: Session, steps: Sequence[StepForecast]) -> None:
    for step in steps:
        session.print(f"{_title(step)}: {step.forecast}")
        _print_wrapped(session, _phrases(step))
    session.print(_summary(steps))


def _phrases(step: StepForecast) -> Iterable[str]:
    if step.instruction in _MADE:
        yield _MADE[step.instruction]
    if step.files is not None:
        yield f"It copies {_copies(step)}."
    if step.instruction == "FROM":
        return
    yield _FORECASTS[step.forecast] + ("; ".join(step.why) + "." if step.forecast != CACHED else "")
    if step.layer:
        yield f"The layer has {size(step.layer)}."
    elif step.layer == 0:
        yield "It made no difference, so there is no layer of it."


def _print_wrapped(session: Session, phrases: Iterable[str]) -> None:
    for phrase in phrases:
        text = printable(phrase)
        for line in textwrap.wrap(
            text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_long_words=False
        ):
            session.print(line)


def _title(step: StepForecast) -> str:
    return cut(printable(" ".join(step.title.split())), _TITLE)


def _copies(step: StepForecast) -> str:
    return "" if step.files is None else f"{_count(step.files, 'file')}, {size(step.size or 0)}"


def _layer(step: StepForecast) -> str:
    return "" if step.layer is None else size(step.layer) if step.layer else "none"


def _summary(steps: Sequence[StepForecast]) -> str:
    counts = {word: sum(step.forecast == word for step in steps) for word in (CACHED, RUNS, MAY_RUN)}
    made = [step for step in steps if step.forecast != CACHED and step.files is not None]
    files, total = sum(step.files or 0 for step in made), sum(step.size or 0 for step in made)
    words: dict[str, Any] = {CACHED: "cached", RUNS: "to run", MAY_RUN: "that may run"}
    told = ", ".join(f"{count} {words[word]}" for word, count in counts.items() if count) or "nothing to do"
    copied = f"; {_count(files, 'file')} with {size(total)} to copy" if made else ""
    return f"{_count(len(steps), 'step')}: {told}{copied}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
