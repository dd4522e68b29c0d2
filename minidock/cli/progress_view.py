"""The live view of a build: a process that reads the build's events and draws them.

It is a process of its own because a build is one thread that forks, and waits for commands: nothing in it could keep
the clock running. When the events end, however the build ended, the terminal is given back as it was.
"""

from __future__ import annotations

import os
import select
import signal
import time
from io import StringIO
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console

from minidock.cli.progress_board import Board
from minidock.model.events import OVER, decode_event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from rich.text import Text

_EVENTS, _TERMINAL = 0, 2
_PERIOD = 0.1
_CHUNK = 1 << 16
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"
_UNKNOWN_SIZE = os.terminal_size((80, 24))


class Screen:
    """The part of a terminal that the view is drawn on: the last lines above the cursor."""

    __slots__ = ("_drawn", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._drawn: list[int] = []

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines as they are now."""
        try:
            size = os.get_terminal_size(self._fd)
        except OSError:
            return _UNKNOWN_SIZE
        return size if size.columns and size.lines else _UNKNOWN_SIZE

    def draw(self, lines: Sequence[Text], *, last: bool = False) -> None:
        """Put ``lines`` in the place of those that were drawn before. Raises OSError when the terminal is gone."""
        columns = self.size.columns
        # A terminal that has become narrower has broken the lines that were there.
        rows = sum(max(1, -(-cells // columns)) for cells in self._drawn)
        up = f"\x1b[{rows}A" if rows else ""
        shown = [_rendered(line, columns, whole=last) for line in lines]
        body = "".join(f"{line}{_CLEAR_LINE}\r\n" for line in shown)
        cursor = _SHOW_CURSOR if last else _HIDE_CURSOR
        self._write(f"{cursor}{up}\r{body}{_CLEAR_BELOW}")
        self._drawn = [cell_len(line.plain) for line in lines]

    def leave(self) -> None:
        """Let others write to the terminal: what comes next is drawn below."""
        self._write(_SHOW_CURSOR)
        self._drawn = []

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                select.select([], [self._fd], [])


def _rendered(line: Text, columns: int, *, whole: bool) -> str:
    """A line with the terminal's codes for its style; ``whole``, it may take several rows."""
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=columns, highlight=False, legacy_windows=False)
    console.print(line, end="", soft_wrap=whole, no_wrap=not whole, overflow="ignore" if whole else "crop")
    return out.getvalue()


class View:
    """Draws the events of ``source`` on a screen until they end."""

    __slots__ = ("_board", "_over", "_rest", "_screen", "_source")

    def __init__(self, source: int, screen: Screen) -> None:
        self._source = source
        self._screen = screen
        self._board = Board()
        self._rest = b""
        self._over = False

    def run(self) -> None:
        """Raises OSError when the terminal is gone."""
        drawn = 0.0
        while not self._over:
            ready, _, _ = select.select([self._source], [], [], _PERIOD)
            if ready:
                self._read()
            now = time.monotonic()
            if now - drawn >= _PERIOD and not self._over:
                # One row is the cursor's, one column keeps full lines from being broken.
                size = self._screen.size
                self._screen.draw(self._board.frame(max(size.columns - 1, 1), max(size.lines - 1, 1), now))
                drawn = now
        self._board.break_off()
        self._screen.draw(self._board.summary(max(self._screen.size.columns - 1, 1)), last=True)

    def _read(self) -> None:
        data = os.read(self._source, _CHUNK)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = decode_event(line)
            self._over |= event.kind == OVER
            self._board.feed(event)
        self._over |= not data


def main() -> None:
    """Draw the events of descriptor 0 on the terminal that descriptor 2 is."""
    screen = Screen(_TERMINAL)

    def stop(_: int, __: FrameType | None) -> None:
        screen.leave()
        signal.raise_signal(signal.SIGSTOP)

    signal.signal(signal.SIGTSTP, stop)
    try:
        View(_EVENTS, screen).run()
    except OSError:
        # The terminal is gone, and with it whoever could be told.
        return
