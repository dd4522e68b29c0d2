"""``minidock container``: the same commands under their management names."""

from __future__ import annotations

from minidock.cli.declare import Group

GROUP = Group(
    "container",
    "Manage containers.",
    {
        "create": "create",
        "exec": "exec",
        "inspect": "container_inspect",
        "kill": "kill",
        "list": "ps",
        "logs": "logs",
        "ls": "ps",
        "pause": "pause",
        "ps": "ps",
        "rm": "rm",
        "run": "run",
        "start": "start",
        "stop": "stop",
        "unpause": "unpause",
        "wait": "wait",
    },
)
