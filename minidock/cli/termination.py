"""A command that is asked to end (SIGTERM, or SIGHUP when its terminal goes) takes down what it has begun, as after
Ctrl-C, and ends with the signal's status."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_REQUESTS = (signal.SIGTERM, signal.SIGHUP)
_BY_SIGNAL = 128


class Terminated(SystemExit):
    """The command was asked to end; its code is 128 and the signal's number."""


@contextmanager
def orderly_end() -> Iterator[None]:
    """While the context lasts, a request to end raises Terminated. A signal that is ignored (nohup) stays so."""
    end = _on_request(os.getpid())
    heeded = [number for number in _REQUESTS if signal.getsignal(number) is signal.SIG_DFL]
    for number in heeded:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)


def _on_request(asked: int) -> Callable[[int, FrameType | None], None]:
    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() == asked:
            raise Terminated(_BY_SIGNAL + number)
        # A process that was forked for a step: it dies of the signal, as it would have done.
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    return end
