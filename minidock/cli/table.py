"""Lists on standard output: docker's tables, ``--format`` and ``-q``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minidock.cli.text import json_text, printable

if TYPE_CHECKING:
    from minidock.cli.session import Session

_GAP = 3
_NARROWEST = 10 - _GAP


def print_table(session: Session, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table in docker's layout: columns at least 10 wide, three of them blank; the headers even without rows."""
    from tabulate import DataRow, TableFormat, tabulate

    first = [header.ljust(_NARROWEST) for header in headers]
    cells = [first, *([printable(cell) for cell in row] for row in rows)]
    row = DataRow("", " " * _GAP, "")
    plain = TableFormat(None, None, None, None, row, row, 0, None)
    text = tabulate(cells, tablefmt=plain, disable_numparse=True, preserve_whitespace=True)
    for line in text.split("\n"):
        session.print(line.rstrip())


def print_list(
    session: Session,
    rows: Iterable[Mapping[str, Any]],
    *,
    columns: Mapping[str, str],
    template: str | None = None,
) -> None:
    """Rows as a table of ``columns`` (field to header), or as ``--format`` asks for.

    ``json`` gives one object a line, ``table TEMPLATE`` a table of the template's fields, anything else is a template
    for each row.
    """
    if template in (None, "", "table"):
        print_table(session, tuple(columns.values()), ([str(row[key]) for key in columns] for row in rows))
        return
    if template == "json":
        for row in rows:
            session.print(json_text(row))
        return
    from minidock.cli.template import Template

    if template.startswith("table "):
        parsed = Template(template.removeprefix("table ").strip())
        headers = [columns.get(name, name.upper()) for name in parsed.fields()]
        print_table(session, headers, (parsed.render(row).split("\t") for row in rows))
        return
    parsed = Template(template)
    for row in rows:
        session.print(printable(parsed.render(row), keep="\n\t"))


def print_ids(session: Session, ids: Iterable[str]) -> None:
    """One ID or name a line."""
    for text in ids:
        session.print(printable(text))


def print_objects(session: Session, objects: list[Any], template: str | None) -> None:
    """What ``inspect`` found: a JSON array, or what ``--format`` makes of each object."""
    if not template:
        session.print(json_text(objects, indent=4))
        return
    from minidock.cli.template import Template

    parsed = Template("{{json .}}" if template == "json" else template)
    for found in objects:
        session.print(printable(parsed.render(found), keep="\n\t"))
