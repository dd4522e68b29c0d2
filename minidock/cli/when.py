"""Points in time: as ``--since`` and ``--until`` give them, and as lists print them."""

from __future__ import annotations

import re
import time

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SECOND = 10**9


def read_time(text: str) -> int:
    """Nanoseconds since the epoch of a time: seconds since the epoch, RFC 3339, or how long ago (``10m``, ``1h30m``).

    Raises ValueError.
    """
    if re.fullmatch(r"[0-9]+(\.[0-9]{1,9})?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * _SECOND + int(fraction.ljust(9, "0") or 0)
    if re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        return time.time_ns() - sum(int(float(count) * _UNITS[unit]) for count, unit in _DURATION.findall(text))
    from datetime import datetime

    # Python keeps microseconds and docker writes nanoseconds: digits beyond the sixth are cut off.
    shortened = re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text)
    try:
        moment = datetime.fromisoformat(shortened)
    except ValueError:
        raise ValueError(
            "use seconds since 1970, a date such as 2026-01-31T12:00:00Z, or a duration such as 10m"
        ) from None
    return int(moment.timestamp() * 10**6) * 10**3


def local_time(nanoseconds: int) -> str:
    """``2026-01-31 12:00:00 +0000 UTC``, docker's form in ``--format`` output; empty for never."""
    if not nanoseconds:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(nanoseconds // _SECOND))


def ago(nanoseconds: int, *, now: int | None = None) -> str:
    """How long ago a time was: ``2 weeks ago``."""
    return f"{since(nanoseconds, now=now)} ago"


def since(nanoseconds: int, *, now: int | None = None) -> str:
    """The time from then until now, rounded: ``17 seconds``. A time to come is less than a second."""
    from minidock.cli.text import age

    present = time.time_ns() if now is None else now
    return age(max(0, present - nanoseconds) / _SECOND)
