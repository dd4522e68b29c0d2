"""What a build says while it works: BuildKit's plain form, line by line, or nothing.

Where the lines go is the caller's: a progress is handed a function that writes bytes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from minidock.log import printable

if TYPE_CHECKING:
    from collections.abc import Callable

_TAIL = 4096
_PATIENCE = 1.0


class StepProgress(Protocol):
    """One step under way. Exactly one of ``done``, ``cached``, ``canceled`` and ``error`` ends it."""

    def output(self, data: bytes) -> None:
        """Output as it comes, not necessarily whole lines."""

    def copied(self, count: int) -> None:
        """So many bytes of files were copied since the step began."""

    def missed(self, reason: str) -> None:
        """One reason why its result was not there already."""

    def done(self) -> None:
        """It is finished."""

    def cached(self) -> None:
        """Its result was there already."""

    def canceled(self) -> None:
        """It was broken off."""

    def error(self, message: str) -> None:
        """It failed."""


class Progress(Protocol):
    """What a build tells."""

    def step(self, title: str) -> StepProgress:
        """Begin a step."""

    def warning(self, message: str) -> None:
        """Something that does not stop the build."""

    def tick(self) -> None:
        """Nothing was told for a while, though steps are under way."""


class PlainProgress:
    """``#5 [stage 2/4] RUN make``, ``#5 0.312 output``, ``#5 DONE 1.2s``: lines for people and logs.

    Of several steps at once one has the word until it ends or is silent for a second while another has something to
    say; what the others say meanwhile comes when they have the word: ``#5 ...`` and a blank line, then their title.
    """

    __slots__ = ("_count", "_speaker", "_waiting", "_write")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._count = 0
        self._speaker: _PlainStep | None = None
        self._waiting: list[_PlainStep] = []

    def step(self, title: str) -> StepProgress:
        self._count += 1
        step = _PlainStep(self._count, title, self)
        self._waiting.append(step)
        self.say(step, b"")
        return step

    def warning(self, message: str) -> None:
        self._write(_warning(message))

    def tick(self) -> None:
        waiting = next((step for step in self._waiting if step.held), None)
        if waiting is not None and not self._is_busy():
            self._give(waiting)
            self._flush(waiting)
            self._pass_on()

    def say(self, step: _PlainStep, data: bytes) -> None:
        """Write what a step says, now or when it has the word."""
        step.held.append(data)
        if step is not self._speaker:
            if self._is_busy():
                return
            self._give(step)
        self._flush(step)

    def _is_busy(self) -> bool:
        """Whether somebody has the word and used it just now."""
        return self._speaker is not None and time.monotonic() - self._speaker.spoke < _PATIENCE

    def end(self, step: _PlainStep, data: bytes) -> None:
        """Write a step's last words, and let those that wait have theirs."""
        step.ended = True
        self.say(step, data)
        self._pass_on()

    def _pass_on(self) -> None:
        """Who has ended has the word no more."""
        while self._speaker is not None and self._speaker.ended and self._waiting:
            self._speaker = None
            waiting = self._waiting[0]
            self._give(waiting)
            self._flush(waiting)
        if self._speaker is not None and self._speaker.ended:
            self._speaker = None

    def _give(self, step: _PlainStep) -> None:
        if self._speaker is not None:
            self._write(f"#{self._speaker.number} ...\n\n".encode())
            self._waiting.append(self._speaker)
        self._waiting.remove(step)
        self._speaker = step
        self._write(step.heading)

    def _flush(self, step: _PlainStep) -> None:
        held, step.held = b"".join(step.held), []
        step.spoke = time.monotonic()
        if held:
            self._write(held)


class _PlainStep:
    """A step: ``held`` is what it could not say yet, ``spoke`` when it last said something."""

    __slots__ = ("_progress", "_rest", "_start", "ended", "heading", "held", "number", "spoke")

    def __init__(self, number: int, title: str, progress: PlainProgress) -> None:
        self.number = number
        self.heading = self._line(_one_line(title))
        self.held: list[bytes] = []
        self.ended = False
        self._progress = progress
        self._start = self.spoke = time.monotonic()
        self._rest = b""

    def output(self, data: bytes) -> None:
        if lines := self._lines(data):
            self._progress.say(self, lines)

    def copied(self, count: int) -> None:  # noqa: ARG002 - a protocol's signature
        return

    def missed(self, reason: str) -> None:
        self._progress.say(self, self._line(f"miss: {_one_line(reason)}"))

    def done(self) -> None:
        self._end(f"DONE {time.monotonic() - self._start:.1f}s")

    def cached(self) -> None:
        self._end("CACHED")

    def canceled(self) -> None:
        self._end("CANCELED")

    def error(self, message: str) -> None:
        self._end(f"ERROR: {_one_line(message)}")

    def _lines(self, data: bytes) -> bytes:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _TAIL:
            lines.append(self._rest)
            self._rest = b""
        prefix = f"#{self.number} {time.monotonic() - self._start:.3f} ".encode()
        return b"".join(prefix + line.rpartition(b"\r")[2] + b"\n" for line in map(_without_cr, lines))

    def _end(self, text: str) -> None:
        last = self._lines(b"\n") if self._rest else b""
        self._progress.end(self, last + self._line(text) + b"\n")

    def _line(self, text: str) -> bytes:
        return f"#{self.number} {text}\n".encode("utf-8", "backslashreplace")


class QuietProgress:
    """Says nothing but warnings, why steps missed the cache where that was asked for, and of a step that fails the end
    of its output."""

    __slots__ = ("_write",)

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def step(self, title: str) -> StepProgress:
        return _QuietStep(title, self._write)

    def warning(self, message: str) -> None:
        self._write(_warning(message))

    def tick(self) -> None:
        return


class _QuietStep:
    __slots__ = ("_tail", "_title", "_write")

    def __init__(self, title: str, write: Callable[[bytes], object]) -> None:
        self._title = title
        self._write = write
        self._tail = b""

    def output(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL:]

    def copied(self, count: int) -> None:  # noqa: ARG002 - a protocol's signature
        return

    def missed(self, reason: str) -> None:
        self._write(f"{_one_line(self._title)}: miss: {_one_line(reason)}\n".encode("utf-8", "backslashreplace"))

    def done(self) -> None:
        return

    def cached(self) -> None:
        return

    def canceled(self) -> None:
        return

    def error(self, message: str) -> None:  # noqa: ARG002 - a protocol's signature
        if self._tail:
            self._write(self._tail if self._tail.endswith(b"\n") else self._tail + b"\n")


def _one_line(text: str) -> str:
    """What a Dockerfile or an image says on one line, tabs as blanks; it may be a stranger's."""
    return printable(" ".join(text.replace("\t", " ").split("\n")).strip())


def _warning(message: str) -> bytes:
    return f"WARNING: {printable(message)}\n".encode("utf-8", "backslashreplace")


def _without_cr(line: bytes) -> bytes:
    return line[:-1] if line.endswith(b"\r") else line
