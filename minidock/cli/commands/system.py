"""``minidock system``."""

from __future__ import annotations

from minidock.cli.declare import Group

GROUP = Group(
    "system",
    "Manage what minidock keeps on the host.",
    {"check": "system_check", "teardown": "system_teardown"},
)
