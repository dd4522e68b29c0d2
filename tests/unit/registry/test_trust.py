"""Who may see the credentials of a registry, and where it may send a request."""

from __future__ import annotations

import pytest

from minidock.registry.trust import may_know, place_of


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("a.test", "a.test"),
        ("a.test:5000", "a.test:5001"),
        ("registry-1.docker.io", "auth.docker.io"),
        ("registry.example.test", "auth.example.test:443"),
        ("127.0.0.1:5000", "localhost:5001"),
        ("10.0.0.1:5000", "10.0.0.1:80"),
        ("[::1]:5000", "[::1]:80"),
    ],
)
def test_who_may_know(host: str, realm: str) -> None:
    assert may_know(host, realm)


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("a.test", "b.test"),
        ("registry.example.test", "example.test.attacker.test"),
        ("registry.docker.io", "evildocker.io"),
        ("a.co.uk", "b.co.uk"),
        ("a.com.au", "b.com.au"),
        ("10.0.0.1", "10.0.0.2"),
        ("10.0.0.1", "99.0.0.1"),
        ("registry", "attacker"),
        ("localhost", "a.test"),
        ("a.test", "localhost"),
        ("127.0.0.1", "10.0.0.1"),
        ("[fe80::1]", "[fe80::2]"),
    ],
)
def test_who_may_not(host: str, realm: str) -> None:
    assert not may_know(host, realm)


@pytest.mark.parametrize(
    "text", ["https://a.test", "http://127.0.0.1:5000/token?x=y", "https://[::1]/", "https://a.test./"]
)
def test_places(text: str) -> None:
    assert place_of(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        *("", "a.test", "ftp://a.test/", "https://", "https:///x", "https://u@a.test", "https://:p@a.test/"),
        *("https://a.test:99999", "https://a.test:x/", "https://a b/", "https://a.test/\n", "file:///x", "https://["),
        *("javascript:x", f"https://{'x' * 64}.test", f"https://{'x.' * 130}test", "https://a..test"),
    ],
)
def test_what_is_no_place(text: str) -> None:
    assert place_of(text) is None
