"""``minidock history``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli import text, when
from minidock.cli.declare import Argument, Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session

COLUMNS = {
    "ID": "IMAGE",
    "Step": "STEP",
    "CreatedSince": "CREATED",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_MISSING = "<missing>"


def execute(
    session: Session,
    *,
    image: str,
    quiet: bool,
    no_trunc: bool,
    format: str | None,  # noqa: A002 - the flag's name
) -> int:
    """Print the history as a table, as IDs, or in a format."""
    from minidock.cli.table import print_ids, print_list

    lines = session.engine.history(image)
    rows = [_row(number, entry, no_trunc=no_trunc) for number, entry in enumerate(lines)]
    if quiet and not format:
        print_ids(session, (row["ID"] for row in rows))
    else:
        print_list(session, rows, columns=COLUMNS, template=format)
    return 0


def _row(number: int, entry: Any, *, no_trunc: bool) -> dict[str, Any]:
    by = " ".join(entry.created_by.split())
    return {
        "ID": (entry.id if no_trunc else text.short_id(entry.id)) or _MISSING,
        "Step": f"~{number}",
        "CreatedSince": _since(entry.created),
        "CreatedAt": entry.created,
        "CreatedBy": by if no_trunc else text.cut(by, 45),
        "Size": text.size(entry.size),
        "Comment": entry.comment,
    }


def _since(created: str) -> str:
    try:
        return when.ago(when.read_time(created))
    except ValueError:
        return "N/A"


COMMAND = Command(
    "history",
    "List the steps that made an image, the latest first; IMAGE~2 is the image as it was at the step ~2.",
    execute,
    options=(
        Option(("-q", "--quiet"), "Print IDs only."),
        Option(("--no-trunc",), "Print IDs and steps whole."),
        Option(("--format",), "json, table TEMPLATE, or a template.", "TEMPLATE"),
    ),
    arguments=(Argument("IMAGE"),),
    not_yet="-H --human --platform",
)
