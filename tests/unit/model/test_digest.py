"""Digests, IDs and chain IDs."""

from __future__ import annotations

import builtins
import hashlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidock.errors import InvalidReferenceError
from minidock.model.digest import EMPTY_DIGEST, chain_id, digest_of, hex_of, is_digest, is_id, parse_digest

# The machine may be busy: how long an example takes says nothing.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


def test_a_digest_is_taken_as_it_is() -> None:
    assert parse_digest(A) == A
    assert hex_of(A) == "a" * 64
    assert is_digest(A)
    assert is_id("a" * 64)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "a" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha512:" + "a" * 128,
        A + "\n",
        " " + A,
        "sha256:../" + "a" * 61,
        "SHA256:" + "a" * 64,
        "sha256:" + "\u0661" * 64,
    ],
)
def test_nothing_else_is_a_digest(text: str) -> None:
    assert not is_digest(text)
    for function in (parse_digest, hex_of):
        with pytest.raises(InvalidReferenceError) as caught:
            function(text)
        assert repr(text) in caught.value.message
        assert "64 hexadecimal" in caught.value.hint


@pytest.mark.parametrize("text", ["", "a" * 63, "a" * 65, "A" * 64, "a" * 64 + "\n", A])
def test_nothing_else_is_an_id(text: str) -> None:
    assert not is_id(text)


@given(st.binary())
@CALM
def test_digest_of_is_a_digest(data: bytes) -> None:
    assert digest_of(data) == "sha256:" + hashlib.sha256(data).hexdigest()
    assert is_digest(digest_of(data))


@given(st.text())
@CALM
def test_only_digests_parse(text: str) -> None:
    if is_digest(text):
        assert len(text) == 71
    else:
        with pytest.raises(InvalidReferenceError):
            parse_digest(text)


def test_the_empty_digest() -> None:
    assert digest_of(b"") == EMPTY_DIGEST


def test_chain_ids_follow_the_specification() -> None:
    assert chain_id([A]) == A
    two = "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    assert chain_id([A, B]) == two
    assert chain_id([A, B, C]) == "sha256:" + hashlib.sha256(f"{two} {C}".encode()).hexdigest()
    assert chain_id([A, B]) != chain_id([B, A])
    with pytest.raises(ValueError, match="at least one layer"):
        chain_id([])


def test_an_interpreter_without_its_own_sha256_uses_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name in {"_sha2", "_sha256"}:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert digest_of(b"abc") == "sha256:" + hashlib.sha256(b"abc").hexdigest()
