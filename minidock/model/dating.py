"""Times that do not depend on when something was made: those of a layer's entries, and an image's ``created``.

Sources: reproducible-builds.org, "SOURCE_DATE_EPOCH"; RFC 3339.
"""

from __future__ import annotations

import time
from typing import NamedTuple

SECOND = 1_000_000_000
# The last second that RFC 3339 can say.
LATEST = 253_402_300_799
EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"
_DAYS_TO_1970 = 719_468


class Dating(NamedTuple):
    """How the entries of a writable layer come by the times that they have in the layer. All is seconds since the epoch
    but ``begun``, which is nanoseconds.

    Times later than ``newest`` are cut to it. ``instead`` stands for the times that the kernel gave when something was
    made or changed, in a step that gives times of its own to all that it copies; without it these stay. Such times
    have a fraction of a second, which copies have not; where the file system keeps whole seconds only, it is those not
    before ``begun``.
    """

    newest: int | None = None
    instead: int | None = None
    begun: int | None = None

    def seconds(self, mtime: int, below: int | None = None) -> int:
        """The time, in seconds, that ``mtime`` (nanoseconds) becomes. ``below`` is the time of the directory that the
        entry, a directory, merges with: one that got something new is newer than it was, so that caches which go by a
        directory's time know it."""
        if self.instead is not None and self._is_new(mtime) and mtime != below:
            return self.changed(None if below is None else below // SECOND)
        return self.cut(mtime // SECOND)

    def changed(self, below: int | None) -> int:
        """The time of a directory that was changed, and was ``below`` beneath (both in seconds), or was not there."""
        found = self.instead or 0
        return self.cut(found if below is None else max(found, below + 1))

    def cut(self, seconds: int) -> int:
        """A time, in seconds, that is not later than the newest."""
        return seconds if self.newest is None else min(seconds, self.newest)

    def _is_new(self, mtime: int) -> bool:
        return bool(mtime % SECOND) or (self.begun is not None and mtime >= self.begun)

    def above(self, made: int) -> Dating:
        """The same for a writable layer that the kernel says was made at ``made`` (nanoseconds)."""
        return self if made % SECOND else self._replace(begun=made)


def read_epoch(text: str) -> int | None:
    """The value of SOURCE_DATE_EPOCH in seconds, None for an empty one. Raises ValueError for what is no time."""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 12 or int(text) > LATEST:
        raise ValueError(f"{EPOCH_VARIABLE} is {text[:40]!r}, which is no time in seconds since 1970")
    return int(text)


def to_rfc3339(seconds: int) -> str:
    """Seconds since the epoch as RFC 3339 in UTC; what it cannot say becomes the nearest that it can."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(seconds, 0), LATEST)))


def later(one: str, other: str) -> str:
    """The later of two times (RFC 3339); the first of equal ones, and the other if it is empty."""
    return one if one and from_rfc3339(one) >= from_rfc3339(other) else other


def from_rfc3339(text: str) -> int:
    """The whole seconds since the epoch that a time says; 0 for what is no time, or one before 1970."""
    head, zone = text[:19], text[19:].lstrip(".0123456789")
    fields = (head[:4], head[5:7], head[8:10], head[11:13], head[14:16], head[17:])
    if head[4::3].upper() != "--T::" or not all(field.isdecimal() for field in fields):
        return 0
    year, month, day, hour, minute, second = map(int, fields)
    # Days since 1 March of the year 0: https://howardhinnant.github.io/date_algorithms.html, days_from_civil.
    year -= month <= 2
    days = year * 365 + year // 4 - year // 100 + year // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return min(max(((days - _DAYS_TO_1970) * 24 + hour) * 3600 + minute * 60 + second - _offset(zone), 0), LATEST)


def _offset(zone: str) -> int:
    """How many seconds a time zone such as ``+02:00`` is ahead; 0 for UTC and what is none."""
    sign, hours, minutes = zone[:1], zone[1:3], zone[4:]
    if sign not in ("+", "-") or not (hours.isdecimal() and minutes.isdecimal()):
        return 0
    return int(f"{sign}1") * (int(hours) * 60 + int(minutes)) * 60
