"""Signals by name and number."""

from __future__ import annotations

import signal

import pytest

from minidock.containers.signals import parse_signal
from minidock.errors import UsageError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[("TERM", 15), ("sigterm", 15), ("15", 15), ("64", 64), ("KILL", 9), (" hup ", 1)],
        *[("RTMAX-1", 63), ("RTMIN", int(signal.SIGRTMIN)), ("SIGRTMIN+3", int(signal.SIGRTMIN) + 3)],
    ],
)
def test_parse(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "NOPE", "SIG", "RTMIN+99", "SIG_IGN", "٣"])
def test_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_signal(text)
    assert caught.value.exit_status == 125
