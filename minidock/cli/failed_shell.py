"""``build --on-error=shell``: what is shown before the shell is opened."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from minidock.cli.report import report
from minidock.engine.on_error import require_terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.errors import BuildError

_NOTE = "This is a shell where it failed, with the step's mounts, network and user. The build ends when you leave it."


class Announcer:
    """Call it with a failure to tell of it. A live view that is drawn meanwhile ends first, by ``end_view``, and gives
    the terminal back. Raises UsageError where there is no terminal for a shell."""

    __slots__ = ("end_view",)

    def __init__(self) -> None:
        require_terminal()
        self.end_view: Callable[[], None] | None = None

    def __call__(self, error: BuildError) -> None:
        if self.end_view is not None:
            self.end_view()
        report(error, debug=False)
        sys.stderr.write(f"{_NOTE}\n")
        sys.stderr.flush()
