"""Several layers at once."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from minidock.engine.transfers import Event, StoppedError, event_of, side_by_side


def test_results_come_in_the_order_of_the_jobs() -> None:
    first = threading.Event()

    def wait() -> str:
        first.wait()
        return "slow"

    def go() -> str:
        first.set()
        return "quick"

    assert side_by_side([wait, go], lambda: None) == ["slow", "quick"]
    assert side_by_side([], lambda: None) == []


def test_the_first_failure_ends_the_others() -> None:
    """Those that run are stopped, those that have not begun never do."""
    stopped, begun = threading.Event(), []

    def run_on() -> None:
        stopped.wait()
        raise StoppedError

    def fail() -> None:
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        side_by_side([run_on, fail, run_on, *[partial(begun.append, 1)] * 9], stopped.set)
    assert len(begun) < 9


def test_what_is_told_names_a_layer_by_twelve_digits() -> None:
    assert event_of(f"sha256:{'ab' * 32}", "Pushing", 1, 2) == Event("ab" * 6, "Pushing", 1, 2)
