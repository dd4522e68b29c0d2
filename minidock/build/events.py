"""Progress that crosses a pipe: told as events on one side, told again on the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from minidock.model.events import (
    BEGIN,
    CACHED,
    CANCELED,
    COPIED,
    DONE,
    ERROR,
    MISSED,
    OUTPUT,
    WARNING,
    Event,
    decode_event,
    encode_event,
    output_event,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.build.progress import Progress, StepProgress


_CONTINUED = "0"


class EventProgress:
    """Tells every event to ``write`` as a line (``model.events``). When nobody listens any more it falls silent: a view
    that is gone ends no build."""

    __slots__ = ("_count", "_write")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write: Callable[[bytes], object] | None = write
        self._count = 0

    def step(self, title: str) -> StepProgress:
        self._count += 1
        step = str(self._count)
        self.tell(Event(BEGIN, step, time.monotonic(), title))
        return _EventStep(step, self.tell)

    def continued(self) -> StepProgress:
        """The step that the other side has begun, and adopts."""
        return _EventStep(_CONTINUED, self.tell)

    def tick(self) -> None:
        return

    def warning(self, message: str) -> None:
        self.tell(Event(WARNING, "", time.monotonic(), message))

    def tell(self, event: Event) -> None:
        """Send one event."""
        if self._write is not None:
            try:
                self._write(encode_event(event))
            except BrokenPipeError:
                self._write = None


class _EventStep:
    __slots__ = ("_step", "_tell")

    def __init__(self, step: str, tell: Callable[[Event], None]) -> None:
        self._step = step
        self._tell = tell

    def output(self, data: bytes) -> None:
        self._tell(output_event(self._step, time.monotonic(), data))

    def copied(self, count: int) -> None:
        self._tell(Event(COPIED, self._step, time.monotonic(), size=count))

    def missed(self, reason: str) -> None:
        self._tell(Event(MISSED, self._step, time.monotonic(), reason))

    def done(self) -> None:
        self._tell(Event(DONE, self._step, time.monotonic()))

    def cached(self) -> None:
        self._tell(Event(CACHED, self._step, time.monotonic()))

    def canceled(self) -> None:
        self._tell(Event(CANCELED, self._step, time.monotonic()))

    def error(self, message: str) -> None:
        self._tell(Event(ERROR, self._step, time.monotonic(), message))


class Relay:
    """The other side of one sender's stream: ``feed`` it as it comes, and every event is told to ``progress``."""

    __slots__ = ("_progress", "_rest", "_steps")

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps: dict[str, StepProgress] = {}
        self._rest = b""

    def adopt(self, step: StepProgress) -> None:
        """``step`` is the one that the sender continues."""
        self._steps[_CONTINUED] = step

    def feed(self, data: bytes) -> None:
        """Bytes of the stream, not necessarily whole lines. Raises ValueError for what is no event."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.tell(decode_event(line))

    def close(self) -> None:
        """The sender is gone: the steps that it had under way are canceled."""
        steps, self._steps, self._rest = self._steps, {}, b""
        for step in steps.values():
            step.canceled()

    def tell(self, event: Event) -> None:
        """Tell one event."""
        if event.kind == WARNING:
            self._progress.warning(event.text)
        elif event.kind == BEGIN:
            self._steps[event.step] = self._progress.step(event.text)
        elif event.kind == OUTPUT:
            self._steps[event.step].output(event.data)
        elif event.kind == COPIED:
            self._steps[event.step].copied(event.size)
        elif event.kind == MISSED:
            self._steps[event.step].missed(event.text)
        elif event.step in self._steps:
            step = self._steps.pop(event.step)
            if event.kind == ERROR:
                step.error(event.text)
            else:
                {DONE: step.done, CACHED: step.cached, CANCELED: step.canceled}[event.kind]()
