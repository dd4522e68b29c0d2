"""``minidock builder``: building, and what builds leave behind."""

from __future__ import annotations

from minidock.cli.declare import Group

GROUP = Group(
    "builder",
    "Manage the build cache.",
    {
        "build": "build",
        "du": "builder_du",
        "prune": "builder_prune",
    },
)
