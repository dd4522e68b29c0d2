"""How long is waited before something is tried again."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.registry.retry import Patience


def _wait(failures: int, asked: str = "", chance: float = 1.0) -> float:
    waits: list[float] = []
    Patience(sleep=waits.append, chance=lambda: chance).wait(failures, asked=asked)
    return waits[0]


def test_each_time_twice_as_long_up_to_a_bound() -> None:
    assert [_wait(failures) for failures in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_there_is_chance_in_it() -> None:
    assert (_wait(3, chance=0.0), _wait(3, chance=0.5), _wait(3, chance=1.0)) == (1, 1.5, 2)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        *(("0", 0), ("7", 7), (" 7 ", 7), ("30", 30), ("3600", 30), ("999999999", 30), ("9" * 5000, 0.5), ("-1", 0.5)),
        *(("1.5", 0.5), ("soon", 0.5), ("", 0.5), ("Mon, 99 Foo 2000 00:00:00 GMT", 0.5), ("\u0661", 0.5)),
    ],
)
def test_the_server_s_own_wish(asked: str, seconds: float) -> None:
    assert _wait(1, asked) == seconds


def test_the_server_s_wish_as_a_date() -> None:
    assert _wait(1, formatdate(time.time() - 100, usegmt=True)) == 0
    assert _wait(1, formatdate(time.time() + 10_000, usegmt=True)) == 30
    soon = datetime.now(UTC) + timedelta(seconds=20)
    assert 10 < _wait(1, format_datetime(soon, usegmt=True)) <= 20


@given(st.text(max_size=40))
def test_any_wish_is_bounded(asked: str) -> None:
    assert 0 <= _wait(1, asked) <= 30
