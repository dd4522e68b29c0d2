"""A registry's answers: bodies within bounds, errors in words."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from minidock.errors import RegistryError
from minidock.registry.answers import decode, read_all, refusal, said


def answer(body: bytes | str = b"", status: int = 200, **options: Any) -> urllib3.HTTPResponse:
    data = body.encode() if isinstance(body, str) else body
    return urllib3.HTTPResponse(io.BytesIO(data), status=status, preload_content=False, **options)


def errors(*entries: object) -> str:
    return json.dumps({"errors": entries})


def test_a_body_up_to_the_limit() -> None:
    assert read_all(answer(b"x" * 200_000), limit=200_000, what="it") == b"x" * 200_000
    with pytest.raises(RegistryError, match=r"^it has more than the 199999 bytes allowed$"):
        read_all(answer(b"x" * 200_000), limit=199_999, what="it")


def test_a_body_that_is_slow() -> None:
    times: Iterator[float] = iter([0.0, 59.0, 61.0])
    with pytest.raises(RegistryError, match=r"^it did not come within 60 seconds$"):
        read_all(answer(b"x" * 200_000), limit=1 << 20, what="it", clock=lambda: next(times))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (errors({"code": "DENIED", "message": "no"}), (["DENIED"], "no")),
        (errors({"code": "A"}, {"code": "B", "message": " two\n lines\t"}), (["A", "B"], "two lines")),
        (errors({"code": "A", "message": "\x1b[2J"}), (["A"], r"\x1b[2J")),
        (errors({"code": "A", "message": "x" * 1000}), (["A"], "x" * 300)),
        (errors("text", 5, None, {"code": 7, "message": {"a": 1}}), (["7"], "{'a': 1}")),
        (json.dumps({"details": "incorrect username or password"}), ([], "incorrect username or password")),
        (json.dumps({"errors": {}, "message": "m"}), ([], "m")),
        ("[]", ([], "")),
        ("", ([], "")),
        ("<html>", ([], "")),
        (b"\xff\xfe", ([], "")),
        (b" " * ((1 << 20) + 1), ([], "")),
        ("[" * 100_000, ([], "")),
    ],
)
def test_what_an_error_says(body: bytes | str, found: tuple[list[str], str]) -> None:
    assert said(answer(body)) == found


@pytest.mark.parametrize(
    ("status", "body", "authorized", "message", "hint"),
    [
        (401, "", False, "a.test denies access", "`minidock login a.test`"),
        (
            403,
            errors({"message": "no"}),
            True,
            "a.test denies access: no",
            "its credentials do not allow that: `minidock login a.test`",
        ),
        (404, errors({"code": "NAME_UNKNOWN"}), False, "a.test has no such repository", "look at the name"),
        (404, errors({"code": "MANIFEST_UNKNOWN"}), False, "a.test has no such image", "look at the tag or digest"),
        (429, "", False, "a.test limits how often that may be asked", "try again later, or `minidock login a.test`"),
        (429, "", True, "a.test limits how often that may be asked", "try again later"),
        (500, "x", False, "a.test answers 500", ""),
    ],
)
def test_refusals(status: int, body: str, authorized: bool, message: str, hint: str) -> None:
    error = refusal(answer(body, status), what="pull a.test/b", host="a.test", authorized=authorized)
    assert error.message == f"cannot pull a.test/b: {message}"
    assert error.hint == hint


def test_docker_hub_is_logged_in_to_without_a_name() -> None:
    error = refusal(answer(status=401), what="pull b", host="registry-1.docker.io", authorized=False)
    assert error.hint == "`minidock login`"
    error = refusal(
        answer(status=401), what="pull b", host="auth.docker.io", login="registry-1.docker.io", authorized=False
    )
    assert error.message == "cannot pull b: auth.docker.io denies access"
    assert error.hint == "`minidock login`"


def test_a_reason_of_the_server_s_own() -> None:
    error = refusal(answer(status=418, reason="I'm\x1b a teapot"), what="x", host="a.test", authorized=False)
    assert error.message == r"cannot x: a.test answers 418 I'm\x1b a teapot"


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"NaN", b'{"a": Infinity}', b"[" * 100_000, b"1" * 5000])
def test_json_of_any_kind(data: bytes) -> None:
    with pytest.raises(RegistryError, match=r"^it is not valid JSON$"):
        decode(data, what="it")
