"""``minidock explain build``: what ``build`` would do, step by step and in plain words, without doing any of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli.commands.build import COMMAND as BUILD
from minidock.cli.declare import Command

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, **values: Any) -> int:
    """Print the plan of the build; the exit status is that of ``build --plan``."""
    return BUILD.execute(session, **{**values, "plan": True, "phrases": True})


COMMAND = Command(
    "build",
    "Print what each step of a build is and whether it would run, without doing it.",
    execute,
    options=BUILD.options,
    arguments=BUILD.arguments,
    not_yet=BUILD.not_yet,
)
