"""A build beside its live view: the view's process, and the pipe on which the build tells it what happens."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from minidock.model.events import OVER, Event, encode_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = (
    "import json, sys\nsys.path[:] = json.loads(sys.argv[1])\nfrom minidock.cli.progress_view import main\nmain()\n"
)
_SHOW_CURSOR = b"\x1b[?25h"
_TERMINATED = 128 + signal.SIGTERM
# The keyboard's interrupt is for the build; the view ends when the build has said everything.
_NOT_FOR_THE_VIEW = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


@contextmanager
def live_view() -> Iterator[int]:
    """A descriptor for the events of a build (``progress_form`` "events"), which are drawn on standard error while the
    context lasts. At its end everything is drawn and the terminal is as it was."""
    pid, events = _start()
    before = signal.signal(signal.SIGTERM, _on_termination(os.getpid()))
    try:
        yield events
    finally:
        with suppress(BrokenPipeError):
            os.write(events, encode_event(Event(OVER, "", time.monotonic())))
        os.close(events)
        _, status = os.waitpid(pid, 0)
        if status:
            # Killed: it may have left the cursor hidden.
            with suppress(OSError):
                os.write(2, _SHOW_CURSOR)
        signal.signal(signal.SIGTERM, before)


def _start() -> tuple[int, int]:
    """Start the view's process; its ID, and the end of the pipe that it reads from."""
    source, events = os.pipe()
    path = json.dumps([*(os.path.abspath(entry) for entry in sys.path), _PACKAGES])
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", _PROGRAM, path],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
            setsigmask=_NOT_FOR_THE_VIEW,
        )
    except BaseException:
        os.close(events)
        raise
    finally:
        os.close(source)
    return pid, events


class _Terminated(SystemExit):
    """The build was asked to end: it takes its steps down and lets the view end first."""


def _on_termination(builder: int) -> Callable[[int, FrameType | None], None]:
    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() == builder:
            raise _Terminated(_TERMINATED)
        # A process that was forked for a step: it dies of the signal, as it would have done.
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    return end
