"""What a build tells of its steps as values that can be sent: from the process that runs a stage to the one that shows
it. One JSON array a line; every sender has a stream of its own, and names its steps as it likes.
"""

from __future__ import annotations

import binascii
import json
from typing import NamedTuple

BEGIN, OUTPUT, COPIED, MISSED, WARNING = "begin", "output", "copied", "missed", "warning"
DONE, CACHED, CANCELED, ERROR = "done", "cached", "canceled", "error"
ENDS = (DONE, CACHED, CANCELED, ERROR)
OVER = "over"


class Event(NamedTuple):
    """Something that happened at ``when``, seconds of the host's monotonic clock, which all of its processes share.

    ``kind`` is BEGIN (``text`` is the title), OUTPUT (``text`` is base64 of the bytes), COPIED (``size`` bytes so
    far), MISSED (``text`` says why it is not taken from the cache), one of ENDS (``text`` is an ERROR's message),
    WARNING (``text``, without a step), or OVER: the last one.
    """

    kind: str
    step: str
    when: float
    text: str = ""
    size: int = 0

    @property
    def data(self) -> bytes:
        """The bytes of an OUTPUT."""
        return binascii.a2b_base64(self.text)


def output_event(step: str, when: float, data: bytes) -> Event:
    """An OUTPUT of these bytes."""
    return Event(OUTPUT, step, when, binascii.b2a_base64(data, newline=False).decode())


def encode_event(event: Event) -> bytes:
    """The event as a line, its newline included."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def decode_event(line: bytes) -> Event:
    """The event of a line. Raises ValueError for anything else."""
    value = json.loads(line)
    if not isinstance(value, list) or len(value) != len(Event._fields):
        raise ValueError(f"not an event: {line[:80]!r}")
    return Event(*value)
