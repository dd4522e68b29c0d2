"""When a request is tried again, and after how long: 429 and 5xx with ``Retry-After`` (RFC 9110, 10.2.3), else longer
each time, with some chance in it so that those who failed together do not come again together."""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

STATUSES = frozenset({408, 429, 500, 502, 503, 504})


class Patience(NamedTuple):
    """How often something is tried, and how long is waited: ``base`` seconds at first, ``longest`` at most, also where
    the server asks for more. ``sleep`` and ``chance`` (0 to 1) are replaced by tests."""

    tries: int = 5
    base: float = 0.5
    longest: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def wait(self, failures: int, *, asked: str = "") -> None:
        """Wait after the given number of failures; ``asked`` is a ``Retry-After``."""
        seconds = min(self.base * 2 ** (failures - 1), self.longest) * (0.5 + self.chance() / 2)
        named = _seconds(asked)
        self.sleep(seconds if named is None else min(max(named, 0.0), self.longest))


def _seconds(text: str) -> float | None:
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
