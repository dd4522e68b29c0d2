"""Signals by the names and numbers that people give."""

from __future__ import annotations

import signal

from minidock.errors import UsageError

_LAST = 64


def parse_signal(text: str) -> int:
    """The number of ``TERM``, ``SIGTERM``, ``15``, ``RTMIN+3`` or ``RTMAX-1``; raises UsageError for anything else."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isascii() and name.isdigit():
        if 1 <= int(name) <= _LAST:
            return int(name)
    elif name.startswith(("RTMIN+", "RTMAX-")) and name[6:].isdigit():
        number = (
            int(signal.SIGRTMIN) + int(name[6:]) if name.startswith("RTMIN") else int(signal.SIGRTMAX) - int(name[6:])
        )
        if int(signal.SIGRTMIN) <= number <= int(signal.SIGRTMAX):
            return number
    elif (found := getattr(signal, f"SIG{name}", None)) is not None and isinstance(found, signal.Signals):
        return int(found)
    raise UsageError(f"invalid signal {text!r}", hint="give a name such as TERM or SIGUSR1, or a number from 1 to 64")
