"""``minidock system teardown``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Command

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session) -> int:
    session.engine.teardown()
    return 0


COMMAND = Command(
    "teardown",
    "Remove the bridge, the firewall rules, the cgroups and the layers' mounts; nothing that is stored goes.",
    execute,
)
