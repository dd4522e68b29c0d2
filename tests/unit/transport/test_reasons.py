"""Errors of connections in words."""

from __future__ import annotations

import ssl

import pytest
import urllib3

from minidock.transport.reasons import reason_of


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


class _Invalid(ssl.SSLCertVerificationError):
    verify_message = "self-signed certificate"


_CERTIFICATE = "its certificate is not valid"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (urllib3.exceptions.ReadTimeoutError(None, "", "Read timed out."), "there is no answer for 60 seconds"),  # type: ignore[arg-type]
        (urllib3.exceptions.ConnectTimeoutError(None, "connect timed out"), "there is no answer for 20 seconds"),
        (_caused(urllib3.exceptions.ProtocolError("x"), ConnectionResetError(104, "Connection reset by peer")),
         "the connection ended too early"),
        (urllib3.exceptions.IncompleteRead(5, 10), "the connection ended too early"),
        (_caused(urllib3.exceptions.HTTPError("x"), OSError(111, "Connection refused")), "Connection refused"),
        (_caused(urllib3.exceptions.SSLError("x"), _Invalid()), f"{_CERTIFICATE}: self-signed certificate"),
        (urllib3.exceptions.LocationParseError("a b"), "Failed to parse: a b"),
        (ValueError(), "ValueError"),
    ],
)  # fmt: skip
def test_reasons(error: BaseException, reason: str) -> None:
    assert reason_of(error, connect=20, read=60) == reason


def test_errors_that_go_round() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert reason_of(one, connect=1, read=1) in ("one", "two")
