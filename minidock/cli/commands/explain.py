"""``minidock explain``: what a command would do, step by step, without doing it."""

from __future__ import annotations

from minidock.cli.declare import Group

GROUP = Group(
    "explain", "Print the steps of a command without doing them.", {"build": "explain_build", "run": "explain_run"}
)
