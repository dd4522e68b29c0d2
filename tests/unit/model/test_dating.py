"""Times that do not depend on the clock, and their words."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.model.dating import LATEST, SECOND, Dating, from_rfc3339, later, read_epoch, to_rfc3339

WHOLE = 1_500_000_000 * SECOND
NOW = 1_700_000_000 * SECOND + 123


def test_without_a_say_times_are_only_cut_to_the_second() -> None:
    assert Dating().seconds(NOW) == NOW // SECOND
    assert Dating().seconds(NOW, WHOLE) == NOW // SECOND
    assert Dating().seconds(-1) == -1


def test_what_the_kernel_dated_gets_another_time() -> None:
    dating = Dating(instead=7)
    assert dating.seconds(WHOLE) == WHOLE // SECOND, "a copy's time, which is whole"
    assert dating.seconds(NOW) == 7


@pytest.mark.parametrize(("below", "expected"), [(5, 7), (6, 7), (7, 8), (100, 101)])
def test_a_directory_that_changed_is_newer_than_it_was(below: int, expected: int) -> None:
    assert Dating(instead=7).seconds(NOW, below * SECOND) == expected


def test_a_directory_that_did_not_change_keeps_its_time() -> None:
    assert Dating(instead=7).seconds(WHOLE, WHOLE) == WHOLE // SECOND
    # A file system that keeps fractions shows them in what is beneath, too.
    assert Dating(instead=7).seconds(NOW, NOW) == NOW // SECOND


def test_an_epoch_cuts_everything() -> None:
    assert Dating(newest=9).seconds(NOW) == 9
    assert Dating(newest=9).seconds(8 * SECOND) == 8
    assert Dating(newest=9, instead=9).seconds(NOW, 100 * SECOND) == 9
    assert Dating(newest=9).seconds(WHOLE, WHOLE) == 9


def test_whole_seconds_are_the_kernel_s_where_it_knows_no_others() -> None:
    """A file system such as ext3, or ext4 with small inodes."""
    dating = Dating(instead=7)
    assert dating.above(NOW) == dating
    coarse = dating.above(WHOLE)
    assert coarse.seconds(WHOLE) == coarse.seconds(WHOLE + SECOND) == 7
    assert coarse.seconds(WHOLE - SECOND) == WHOLE // SECOND - 1
    assert coarse.seconds(WHOLE, WHOLE) == WHOLE // SECOND


@given(st.integers(0, LATEST))
def test_words_and_back(seconds: int) -> None:
    text = to_rfc3339(seconds)
    assert from_rfc3339(text) == seconds
    assert text == datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2020-01-01T00:00:00.999999999Z", 1_577_836_800),
        ("2020-01-01t02:00:00+02:00", 1_577_836_800),
        ("2019-12-31T18:30:00-05:30", 1_577_836_800),
        ("0001-01-01T00:00:00Z", 0),
        ("", 0),
        ("yesterday", 0),
        ("2020-01-01", 0),
    ],
)
def test_times_of_others(text: str, seconds: int) -> None:
    assert from_rfc3339(text) == seconds


def test_what_cannot_be_said_becomes_the_nearest() -> None:
    assert to_rfc3339(-5) == "1970-01-01T00:00:00Z"
    assert to_rfc3339(10**15) == "9999-12-31T23:59:59Z"


def test_the_later_of_two() -> None:
    early, late = "2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z"
    assert later(early, late) == later(late, early) == later("", late) == later(late, "") == late
    assert later("", "") == ""


@pytest.mark.parametrize(
    ("text", "epoch"), [("", None), ("0", 0), ("1600000000", 1_600_000_000), (str(LATEST), LATEST)]
)
def test_epochs(text: str, epoch: int | None) -> None:
    assert read_epoch(text) == epoch


@pytest.mark.parametrize("text", ["-1", "1.5", "soon", "1 ", "٣", "1_000", str(LATEST + 1), "9" * 5000])
def test_what_is_no_epoch(text: str) -> None:
    with pytest.raises(ValueError, match="SOURCE_DATE_EPOCH is"):
        read_epoch(text)
