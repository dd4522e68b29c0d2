"""``minidock logs``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option, read_whole

if TYPE_CHECKING:
    from minidock.cli.session import Session

_STDERR = 2


def read_tail(text: str) -> int:
    """A number of lines, or ``all`` (-1); ValueError for anything else."""
    try:
        return -1 if text == "all" else max(-1, read_whole(text))
    except ValueError:
        raise ValueError("use a number of lines, or all") from None


def read_moment(text: str) -> int:
    from minidock.cli.when import read_time

    return read_time(text)


def execute(
    session: Session,
    *,
    container: str,
    follow: bool,
    tail: int | None,
    timestamps: bool,
    since: int | None,
    until: int | None,
) -> int:
    """Copy the output, each stream to its own."""
    pieces = session.engine.logs(
        container,
        follow=follow,
        tail=-1 if tail is None else tail,
        timestamps=timestamps,
        since=since or 0,
        until=until or 0,
    )
    for piece in pieces:
        stream = (sys.stderr if piece.stream == _STDERR else sys.stdout).buffer
        stream.write(piece.data)
        if follow:
            stream.flush()
    sys.stderr.flush()
    return 0


COMMAND = Command(
    "logs",
    "Print a container's output.",
    execute,
    options=(
        Option(("-f", "--follow"), "Go on printing what comes until the container exits."),
        Option(("-n", "--tail"), "Print this many lines from the end, or all.", "COUNT", read=read_tail),
        Option(("-t", "--timestamps"), "Print each line's time in front of it."),
        Option(
            ("--since",), "Leave out what came before: a date, seconds since 1970, or 10m.", "TIME", read=read_moment
        ),
        Option(("--until",), "Leave out what came later.", "TIME", read=read_moment),
    ),
    arguments=(Argument("CONTAINER"),),
    not_yet="--details",
)
