"""``WWW-Authenticate`` in all the forms that servers give it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.registry.challenges import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("basic REALM=x", [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a.test/token",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a.test/token", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ('Bearer realm = "a" , service = b', [("bearer", {"realm": "a", "service": "b"})]),
        ('Basic realm="x", Bearer realm="y"', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ('Negotiate, Bearer realm="y"', [("negotiate", {}), ("bearer", {"realm": "y"})]),
        (r'Basic realm="a \"b\" \\c"', [("basic", {"realm": r'a "b" \c'})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ('Bearer realm="open', [("bearer", {})]),
        ("=x", []),
        ('"x"', []),
    ],
)
def test_challenges(text: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(text) == [Challenge(*one) for one in found]


@given(st.text(alphabet='ab=,"\\ \t', max_size=60))
def test_any_text_is_read(text: str) -> None:
    for challenge in parse_challenges(f"Bearer {text}"):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize("piece", [" ", ",", " ,", "a", 'a="', "a=", "\\", '"', "a b"])
def test_no_header_takes_its_length_squared(piece: str) -> None:
    """A bound that holds a thousand times over: the square takes minutes."""
    before = time.process_time()
    parse_challenges("Bearer " + piece * 200_000)
    assert time.process_time() - before < 5
