"""The terminal that the command line runs in."""

from __future__ import annotations

import os

from minidock.errors import UsageError


def require_terminal(*, interactive: bool) -> None:
    """Raise UsageError where ``-i`` and ``-t`` are asked for and standard input is not a terminal."""
    if interactive and not os.isatty(0):
        raise UsageError("the input device is not a TTY", hint="leave out -t, or run it from a terminal")
