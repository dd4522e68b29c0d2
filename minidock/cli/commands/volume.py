"""``minidock volume``."""

from __future__ import annotations

from minidock.cli.declare import Group

GROUP = Group(
    "volume",
    "Manage volumes.",
    {
        "create": "volume_create",
        "inspect": "volume_inspect",
        "list": "volume_ls",
        "ls": "volume_ls",
        "prune": "volume_prune",
        "remove": "volume_rm",
        "rm": "volume_rm",
    },
)
