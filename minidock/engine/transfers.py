"""Layers on their way to and from registries: what is told of them, and several at once."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Of more at once none comes sooner, and each takes memory.
_AT_ONCE = 3
_SHORT = 12
# The states that are told again and again, with how far it has come.
PROGRESS = frozenset({"Downloading", "Compressing", "Pushing"})

_Result = TypeVar("_Result")


class Event(NamedTuple):
    """Something that happens to a layer: ``layer`` is the 12 first digits of its digest, ``state`` a phrase of
    docker's; ``done`` of ``total`` bytes are behind it in the states of ``PROGRESS``."""

    layer: str
    state: str
    done: int = 0
    total: int = 0


class StoppedError(Exception):
    """Another layer has failed: this one need not go on."""


def event_of(digest: str, state: str, done: int = 0, total: int = 0) -> Event:
    """What happens to the layer of a digest."""
    return Event(digest.partition(":")[2][:_SHORT], state, done, total)


def side_by_side(jobs: Sequence[Callable[[], _Result]], stop: Callable[[], None]) -> list[_Result]:
    """The results of all jobs, which run in threads that have ended when this returns.

    When one fails, or the caller is interrupted, those that have not begun never do, and ``stop`` is called so that the
    others end soon, with StoppedError. Raises what the first job that failed raised.
    """
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="layer") as pool:
        futures = [pool.submit(job) for job in jobs]

        def end() -> None:
            for future in futures:
                future.cancel()
            stop()

        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            if any(future.exception() for future in done):
                end()
        except BaseException:
            end()
            raise
    for future in futures:
        if not future.cancelled() and not isinstance(future.exception(), StoppedError | None):
            future.result()
    return [future.result() for future in futures]
