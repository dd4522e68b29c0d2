"""Events of a build as lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.model.events import BEGIN, Event, decode_event, encode_event, output_event


@given(st.builds(Event, st.text(), st.text(), st.floats(allow_nan=False), st.text(), st.integers()))
def test_an_event_survives_its_line(event: Event) -> None:
    line = encode_event(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_event(line) == event


@given(st.binary())
def test_output_survives_whatever_its_bytes(data: bytes) -> None:
    assert decode_event(encode_event(output_event("1", 2.5, data))).data == data


def test_a_title_with_bytes_that_are_no_text() -> None:
    event = Event(BEGIN, "1", 0.0, "RUN \udcff\x1b")
    assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b'["begin"]', b"not"])
def test_what_is_no_event(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"event|Expecting"):
        decode_event(line)
