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


class StepProgress(Protocol):
    """One step under way. Exactly one of ``done``, ``cached``, ``canceled`` and ``error`` ends it."""

    def output(self, data: bytes) -> None:
        """Output as it comes, not necessarily whole lines."""

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


class PlainProgress:
    """``#5 [stage 2/4] RUN make``, ``#5 0.312 output``, ``#5 DONE 1.2s``: lines for people and logs."""

    __slots__ = ("_count", "_write")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._count = 0

    def step(self, title: str) -> StepProgress:
        self._count += 1
        return _PlainStep(self._count, title, self._write)

    def warning(self, message: str) -> None:
        self._write(_warning(message))


class _PlainStep:
    __slots__ = ("_number", "_rest", "_start", "_write")

    def __init__(self, number: int, title: str, write: Callable[[bytes], object]) -> None:
        self._number = number
        self._write = write
        self._start = time.monotonic()
        self._rest = b""
        self._line(_one_line(title))

    def output(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _TAIL:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            prefix = f"#{self._number} {time.monotonic() - self._start:.3f} ".encode()
            self._write(b"".join(prefix + line.rpartition(b"\r")[2] + b"\n" for line in map(_without_cr, lines)))

    def done(self) -> None:
        self._end(f"DONE {time.monotonic() - self._start:.1f}s")

    def cached(self) -> None:
        self._end("CACHED")

    def canceled(self) -> None:
        self._end("CANCELED")

    def error(self, message: str) -> None:
        self._end(f"ERROR: {_one_line(message)}")

    def _end(self, text: str) -> None:
        if self._rest:
            self.output(b"\n")
        self._line(text)
        self._write(b"\n")

    def _line(self, text: str) -> None:
        self._write(f"#{self._number} {text}\n".encode("utf-8", "backslashreplace"))


class QuietProgress:
    """Says nothing but warnings, and of a step that fails the end of its output."""

    __slots__ = ("_write",)

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def step(self, title: str) -> StepProgress:  # noqa: ARG002 - a protocol's signature
        return _QuietStep(self._write)

    def warning(self, message: str) -> None:
        self._write(_warning(message))


class _QuietStep:
    __slots__ = ("_tail", "_write")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._tail = b""

    def output(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL:]

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
