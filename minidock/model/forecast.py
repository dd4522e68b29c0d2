"""What a build would do, as values."""

from __future__ import annotations

from typing import NamedTuple

CACHED, RUNS, MAY_RUN = "cached", "runs", "may run"


class StepForecast(NamedTuple):
    """One step of a build that was not done.

    ``title`` is what the progress of the build calls it, ``instruction`` its word. ``forecast`` is CACHED (its result
    is taken from the cache), RUNS, or MAY_RUN: part of what it depends on is made anew before it, and it is taken from
    the cache if that comes out as it did once before. ``files`` and ``size`` are what COPY and ADD select (bytes), None
    where that was not looked at; ``layer`` is the size of the cached layer in bytes, 0 where the step made no
    difference, None where it is not cached. ``why`` says why it is not, in phrases.
    """

    title: str
    instruction: str
    forecast: str
    files: int | None = None
    size: int | None = None
    layer: int | None = None
    why: tuple[str, ...] = ()
