"""What the ``inspect`` commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from minidock.cli.session import require_name
from minidock.errors import MinidockError

if TYPE_CHECKING:
    from minidock.cli.session import Session


def inspect_each(
    session: Session, names: Sequence[str], look_up: Callable[[str], dict[str, Any]], *, template: str | None
) -> int:
    """Print what ``look_up`` gives for the names; those not found are reported, and make the status 1."""
    from minidock.cli.table import print_objects
    from minidock.cli.template import Template

    template = template or None
    if template and template != "json":
        Template(template)
    found: list[Any] = []
    failures: list[MinidockError] = []
    for name in names:
        try:
            require_name(name)
            found.append(look_up(name))
        except MinidockError as error:
            failures.append(error)
    if found or template is None:
        print_objects(session, found, template)
    for failure in failures:
        session.report(failure)
    return 1 if failures else 0
