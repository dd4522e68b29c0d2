"""``minidock version``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session

LABELS = {"PythonVersion": "Python", "KernelVersion": "Kernel", "Os": "OS", "Arch": "Architecture"}


def execute(session: Session, *, format: str | None) -> int:  # noqa: A002 - the flag's name
    """Print the versions line by line, or in a format."""
    version = session.engine.version()
    if format:
        from minidock.cli.table import print_objects

        print_objects(session, [version], format)
        return 0
    for key, value in version.items():
        session.print(f"{LABELS.get(key, key) + ':':<16} {value}")
    return 0


COMMAND = Command(
    "version",
    "Print the versions of minidock and of what it stands on.",
    execute,
    options=(Option(("-f", "--format"), "json, or a template.", "TEMPLATE"),),
)
