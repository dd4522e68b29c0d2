"""What people read: escapes, cuts, sizes, ages, and the times they give."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.cli import text, when

SECOND = 10**9


@pytest.mark.parametrize(
    ("given_text", "printed"),
    [
        ("plain ünïcode", "plain ünïcode"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("tab\tnl\n", "tab\\tnl\\n"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_control_characters_are_escaped(given_text: str, printed: str) -> None:
    assert text.printable(given_text) == printed


def test_what_is_kept_stays() -> None:
    assert text.printable("a\nb\tc\x07", keep="\n\t") == "a\nb\tc\\x07"


@given(st.text())
def test_nothing_that_drives_a_terminal_comes_through(anything: str) -> None:
    assert text.printable(anything).isprintable()


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_is_the_same_value_and_drives_no_terminal(value: object) -> None:
    for indent in (None, 4):
        shown = text.json_text(value, indent=indent)
        assert json.loads(shown) == value
        assert shown.replace("\n", "").isprintable()
    assert text.json_text("\x9b\u202eü\udcff") == '"\\u009b\\u202eü\\udcff"'


def test_cuts_are_marked() -> None:
    assert text.cut("x" * 20, 20) == "x" * 20
    assert text.cut("x" * 21, 20) == "x" * 19 + "…"
    assert text.short_id("sha256:0123456789abcdef") == "0123456789ab"


@pytest.mark.parametrize(
    ("count", "decimal", "binary"),
    [
        (0, "0B", "0B"),
        (999, "999B", "999B"),
        (4_800_000, "4.8MB", "4.578MiB"),
        (2_093_796_556, "2.094GB", "1.95GiB"),
        (10**18, "1000PB", "888.2PiB"),
    ],
)
def test_sizes(count: int, decimal: str, binary: str) -> None:
    assert (text.size(count), text.memory(count)) == (decimal, binary)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (17, "17 seconds"),
        (60, "About a minute"),
        (180, "3 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (70 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_ages_are_dockers(seconds: float, words: str) -> None:
    assert text.age(seconds) == words


def test_since_and_ago() -> None:
    assert when.ago(5 * SECOND, now=22 * SECOND) == "17 seconds ago"
    assert when.since(22 * SECOND, now=5 * SECOND) == "Less than a second"


@pytest.mark.parametrize(
    ("given_text", "nanoseconds"),
    [
        ("1700000000", 1700000000 * SECOND),
        ("1700000000.5", 1700000000 * SECOND + SECOND // 2),
        ("2023-11-14T22:13:20Z", 1700000000 * SECOND),
        ("2023-11-14T22:13:20.123456789Z", 1700000000 * SECOND + 123456000),
        ("2023-11-15T00:13:20+02:00", 1700000000 * SECOND),
    ],
)
def test_times_are_read(given_text: str, nanoseconds: int) -> None:
    assert when.read_time(given_text) == nanoseconds


@pytest.mark.parametrize(("duration", "seconds"), [("10m", 600), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25)])
def test_durations_count_back_from_now(duration: str, seconds: float) -> None:
    expected = time.time_ns() - int(seconds * SECOND)
    assert abs(when.read_time(duration) - expected) < SECOND


@pytest.mark.parametrize("nonsense", ["yesterday", "10x", "", "2023-13-01"])
def test_times_that_are_none(nonsense: str) -> None:
    with pytest.raises(ValueError, match="use seconds since 1970"):
        when.read_time(nonsense)


def test_local_time() -> None:
    assert when.local_time(0) == ""
    assert when.local_time(1700000000 * SECOND).startswith("2023-11-1")
