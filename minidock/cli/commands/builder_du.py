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

COLUMNS = {
    "ID": "ID",
    "Type": "TYPE",
    "Reclaimable": "RECLAIMABLE",
    "Size": "SIZE",
    "LastAccessed": "LAST ACCESSED",
    "Description": "DESCRIPTION",
}
FILTERS = ("id", "type", "inuse", "shared", "private", "imported", "description", "until")
# The fields of --verbose, as buildx du prints them, and what it calls them.
_WHOLE = {
    "ID": "ID",
    "CreatedAt": "Created at",
    "Mutable": "Mutable",
    "Reclaimable": "Reclaimable",
    "Shared": "Shared",
    "Size": "Size",
    "Description": "Description",
    "Origin": "Taken from",
    "LastAccessed": "Last used",
    "Type": "Type",
}


def chosen(entries: Sequence[CacheEntry], filters: Filters) -> list[CacheEntry]:
    """The entries for which the filters hold; ``until`` is about the last use, ``imported`` about steps that were taken
    from a cache of elsewhere."""
    until = filters.times("until")
    busy, shared = filters.boolean("inuse"), filters.boolean("shared")
    private, imported = filters.boolean("private"), filters.boolean("imported")
    prefixes = filters.values("id")
    return [
        entry
        for entry in entries
        if filters.matches("type", entry.type)
        and (not prefixes or any(entry.id.startswith(prefix) for prefix in prefixes))
        and busy in (None, entry.busy)
        and shared in (None, entry.shared)
        and private in (None, not entry.shared)
        and imported in (None, bool(entry.origin))
        and filters.found_in("description", entry.description)
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
    brief = not (verbose or format)
    rows: list[dict[str, Any]] = [
        {
            "ID": entry.id if verbose else entry.id[:12],
            "Type": entry.type,
            "Reclaimable": entry.reclaimable,
            "Size": text.size(entry.size),
            "LastAccessed": when.ago(entry.used),
            "LastUsed": when.ago(entry.used),
            "LastUsedAt": when.local_time(entry.used),
            "CreatedAt": when.local_time(entry.created),
            "Description": text.printable(_shortened(entry.description) if brief else entry.description),
            "Origin": text.printable(entry.origin),
            "InUse": entry.busy,
            "Mutable": entry.type == "cachemount",
            "Shared": entry.shared,
        }
        for entry in entries
    ]
    if verbose and not format:
        for row in map(_worded, rows):
            session.print("".join(f"{f'{what}:':<14}{row[name]}\n" for name, what in _WHOLE.items() if row[name]))
    else:
        print_list(session, rows if format else map(_worded, rows), columns=COLUMNS, template=format)
    if not format:
        _print_sums(session, entries, end="" if verbose else "\n")
    return 0


def _worded(row: dict[str, Any]) -> dict[str, Any]:
    """A row for people: truth in docker's letters."""
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in row.items()}


def _print_sums(session: Session, entries: Sequence[CacheEntry], *, end: str) -> None:
    shared = sum(entry.size for entry in entries if entry.shared)
    total = sum(entry.size for entry in entries)
    sums = {"Shared": shared, "Private": total - shared}
    sums |= {"Reclaimable": sum(entry.size for entry in entries if entry.reclaimable), "Total": total}
    session.print(end + "\n".join(f"{f'{what}:':<12} {text.size(size)}" for what, size in sums.items()))


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
        Option(("--verbose",), "Print all that is known of each."),
    ),
)
