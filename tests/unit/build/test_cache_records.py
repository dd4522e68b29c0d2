"""Records of strangers: what is read of them, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.build.cache_records import (
    MAX_INLINE,
    Offer,
    Used,
    decode_inline,
    decode_record,
    encode_inline,
    encode_record,
)
from minidock.errors import CorruptObjectError

KEY, LAYER, OTHER = ("sha256:" + letter * 64 for letter in "abc")
TIME = "2026-01-02T03:04:05Z"


def test_a_record_comes_back() -> None:
    assert decode_record(encode_record(Used(KEY, LAYER, TIME, "", "RUN"), 7)) == Offer(LAYER, TIME, 7)
    assert decode_record(encode_record(Used(KEY, None, TIME, "", "RUN"), 0)) == Offer(None, TIME)
    precise = "2026-01-02T03:04:05.123456789Z"
    assert decode_record(encode_record(Used(KEY, None, precise), 0)).created == precise


@pytest.mark.parametrize(
    "value",
    [
        {"layer": LAYER, "created": TIME},
        {"layer": LAYER, "created": TIME, "size": -1},
        {"layer": LAYER, "created": TIME, "size": True},
        {"layer": LAYER, "created": TIME, "size": 1.5},
        {"layer": LAYER, "created": TIME, "size": 1 << 64},
        {"layer": "../../etc/passwd", "created": TIME, "size": 1},
        {"layer": "sha256:" + "A" * 64, "created": TIME, "size": 1},
        {"layer": ["x"], "created": TIME, "size": 1},
        {"layer": None, "created": "now"},
        {"layer": None, "created": "2026-13-02T03:04:05Z"},
        {"layer": None, "created": "2026-01-02T03:04:05Z\n"},
        {"layer": None, "created": "2026-01-02T03:04:05+01:00"},
        {"layer": None, "created": "\u0662026-01-02T03:04:05Z"},
        {"layer": None, "created": None},
        {"layer": None},
        [],
        "x",
    ],
)
def test_a_record_that_makes_no_sense(value: Any) -> None:
    with pytest.raises(CorruptObjectError):
        decode_record(json.dumps(value).encode())


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    try:
        decode_record(data)
    except CorruptObjectError:
        return
    raise AssertionError("nothing by chance is a record")


def test_records_of_an_image_come_back() -> None:
    used = [Used(OTHER, None, TIME), Used(KEY, LAYER, TIME)]
    text = encode_inline(used)
    assert text == encode_inline(reversed(used)), "their order makes no difference"
    assert decode_inline(text, [LAYER]) == {KEY: Offer(LAYER, TIME), OTHER: Offer(None, TIME)}
    assert decode_inline(text, []) == {OTHER: Offer(None, TIME)}, "a layer that the image has not is no offer"


def test_single_records_of_an_image_that_make_no_sense_are_left_out() -> None:
    records = {KEY: [LAYER, TIME], "x": [None, TIME], OTHER: [None], LAYER: {"layer": None}, "y" * 71: 5}
    assert set(decode_inline(json.dumps({"records": records}), [LAYER])) == {KEY}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"records": []}', "\ud800", "[" * 100_000, " " * (MAX_INLINE + 1)], ids=range(7)
)
def test_an_annotation_that_makes_no_sense(text: str) -> None:
    with pytest.raises(CorruptObjectError):
        decode_inline(text, [])
