"""``minidock volume ls``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli.declare import Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session

COLUMNS = {"Driver": "DRIVER", "Name": "VOLUME NAME"}
FILTERS = ("dangling", "driver", "label", "name")


def execute(
    session: Session,
    *,
    quiet: bool,
    filter: tuple[str, ...],  # noqa: A002 - the flags' names
    format: str | None,  # noqa: A002
) -> int:
    """Print the volumes as a table, as names, or in a format."""
    from minidock.cli.filters import Filters
    from minidock.cli.table import print_ids, print_list

    filters = Filters(filter, known=FILTERS)
    dangling = filters.boolean("dangling")
    rows: list[dict[str, Any]] = [
        {
            "Driver": "local",
            "Name": volume.name,
            "Labels": ",".join(f"{key}={value}" for key, value in volume.labels),
            "Mountpoint": volume.mountpoint,
            "Scope": "local",
        }
        for volume in session.engine.volumes(dangling=dangling)
        if filters.found_in("name", volume.name)
        and filters.matches("driver", "local")
        and filters.labels(dict(volume.labels))
    ]
    if quiet and not format:
        print_ids(session, (row["Name"] for row in rows))
    else:
        print_list(session, rows, columns=COLUMNS, template=format)
    return 0


COMMAND = Command(
    "ls",
    "List volumes.",
    execute,
    options=(
        Option(("-q", "--quiet"), "Print names only."),
        Option(("-f", "--filter"), f"Only those for which it holds: {', '.join(FILTERS)}.", "KEY=VALUE", many=True),
        Option(("--format",), "json, table TEMPLATE, or a template.", "TEMPLATE"),
    ),
)
