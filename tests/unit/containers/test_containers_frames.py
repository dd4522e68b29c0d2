"""The attach protocol's frames."""

from __future__ import annotations

import pytest

from minidock.containers import frames


def test_a_frame_is_type_three_zeros_length_payload() -> None:
    assert frames.frame(frames.STDERR, b"abc") == b"\x02\0\0\0\0\0\0\x03abc"


def test_frames_arrive_whole_however_they_are_cut() -> None:
    stream = frames.frame(1, b"one") + frames.frame(3, b"") + frames.frame(2, b"x" * 1000)
    expected = [(1, b"one"), (3, b""), (2, b"x" * 1000)]
    for size in (1, 3, 8, 11, 500, len(stream)):
        reader = frames.Reader(limit=1000)
        got = [f for at in range(0, len(stream), size) for f in reader.feed(stream[at : at + size])]
        assert got == expected


def test_a_payload_above_the_limit_is_refused_before_it_is_read() -> None:
    reader = frames.Reader(limit=10)
    with pytest.raises(ValueError, match="11"):
        list(reader.feed(frames.HEADER.pack(0, 11)))
