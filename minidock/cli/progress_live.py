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
    from collections.abc import Iterator

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = (
    "import json, sys\nsys.path[:] = json.loads(sys.argv[1])\nfrom minidock.cli.progress_view import main\nmain()\n"
)
_SHOW_CURSOR = b"\x1b[?25h"
# Who asks for an end asks the build; the view ends when the build has said everything.
_NOT_FOR_THE_VIEW = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class LiveView:
    """A view that runs: ``events`` is a descriptor for the events of a build (``progress_form`` "events")."""

    __slots__ = ("_pid", "events")

    def __init__(self) -> None:
        self._pid, self.events = _start()

    def end(self) -> None:
        """Draw everything and give the terminal back as it was; what is told later is lost."""
        pid, self._pid = self._pid, 0
        if not pid:
            return
        with suppress(BrokenPipeError):
            os.write(self.events, encode_event(Event(OVER, "", time.monotonic())))
        _, status = os.waitpid(pid, 0)
        if status:
            # Killed: it may have left the cursor hidden.
            with suppress(OSError):
                os.write(2, _SHOW_CURSOR)


@contextmanager
def live_view() -> Iterator[LiveView]:
    """A view on standard error while the context lasts, or until its ``end``."""
    view = LiveView()
    try:
        yield view
    finally:
        view.end()
        os.close(view.events)


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
