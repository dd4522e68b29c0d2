"""Durations as Go writes them (time.ParseDuration): ``300ms``, ``1.5h``, ``1m30s``."""

from __future__ import annotations

import re

from minidock.errors import DockerfileError

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(?=\.?[0-9])([0-9]{0,18})(?:\.([0-9]{0,18}))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_MOST = 2**63 - 1


def parse_duration(text: str, *, what: str) -> int:
    """``text`` in nanoseconds; raise DockerfileError, naming ``what``, for anything else and for a negative one."""
    rest = text.removeprefix("+")
    if rest == "0":
        return 0
    total = at = 0
    while at < len(rest) or not rest:
        match = _PART.match(rest, at)
        if not match:
            raise DockerfileError(f"{what} takes a duration, not {text[:80]!r}", hint="write it as 30s, 1m30s or 500ms")
        whole, fraction, unit = match.groups()
        total += int(whole or 0) * _UNITS[unit]
        if fraction:
            total += int(fraction) * _UNITS[unit] // 10 ** len(fraction)
        at = match.end()
    if total > _MOST:
        raise DockerfileError(f"{what} is out of range: {text[:80]!r}", hint="a duration is at most 2562047h")
    return total
