"""``minidock builder du``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli import text
from minidock.cli.declare import Command, Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.cli.filters import Filters
    from minidock.cli.session import Session
    from minidock.engine.listings import CacheEntry

COLUMNS = {"ID": "ID", "Type": "TYPE", "Size": "SIZE", "LastUsed": "LAST USED", "Description": "DESCRIPTION"}
FILTERS = ("id", "type", "inuse", "shared", "until")


def chosen(entries: Sequence[CacheEntry], filters: Filters) -> list[CacheEntry]:
    """The entries for which the filters hold; ``until`` is about the last use."""
    until = filters.times("until")
    busy, shared = filters.boolean("inuse"), filters.boolean("shared")
    prefixes = filters.values("id")
    return [
        entry
        for entry in entries
        if filters.matches("type", entry.type)
        and (not prefixes or any(entry.id.startswith(prefix) for prefix in prefixes))
        and busy in (None, entry.busy)
        and shared in (None, entry.shared)
        and all(entry.used < bound for bound in until)
    ]


def execute(
    session: Session,
    *,
    verbose: bool,
    filter: tuple[str, ...],  # noqa: A002 - the flags' names
    format: str | None,  # noqa: A002
) -> int:
    """Print the build cache as a table or in a format, then what it takes."""
    from minidock.cli import when
    from minidock.cli.filters import Filters
    from minidock.cli.table import print_list

    entries = chosen(session.engine.builder_usage(), Filters(filter, known=FILTERS))
    rows: list[dict[str, Any]] = [
        {
            "ID": entry.id if verbose else entry.id[:12],
            "Type": entry.type,
            "Size": text.size(entry.size),
            "LastUsed": when.ago(entry.used),
            "Description": text.printable(entry.description if verbose else _shortened(entry.description)),
            "InUse": entry.busy,
            "Shared": entry.shared,
        }
        for entry in entries
    ]
    print_list(session, rows, columns=COLUMNS, template=format)
    if not format:
        free = sum(entry.size for entry in entries if not (entry.busy or entry.shared))
        session.print(f"\nReclaimable: {text.size(free)}\nTotal:       {text.size(sum(e.size for e in entries))}")
    return 0


def _shortened(description: str) -> str:
    line = " ".join(description.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


COMMAND = Command(
    "du",
    "Show what the build cache takes: cache mounts, and steps with their layers.",
    execute,
    options=(
        Option(("-f", "--filter"), f"Only those for which it holds: {', '.join(FILTERS)}.", "KEY=VALUE", many=True),
        Option(("--format",), "json, table TEMPLATE, or a template.", "TEMPLATE"),
        Option(("--verbose",), "Print IDs and descriptions whole."),
    ),
)
