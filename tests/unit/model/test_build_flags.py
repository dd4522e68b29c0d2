"""The values of ``--secret``, ``--ssh``, ``--add-host`` and ``--allow``."""

from __future__ import annotations

import pytest

from minidock.errors import UsageError
from minidock.model.build_flags import (
    AgentSource,
    SecretSource,
    parse_agent,
    parse_entitlements,
    parse_host,
    parse_secret,
    unique,
)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("id=a", SecretSource("a")),
        ("id=a,src=/f", SecretSource("a", "/f")),
        ("source=f,ID=a", SecretSource("a", "f")),
        ("id=a,env=T", SecretSource("a", "", "T")),
        ("type=env,id=a", SecretSource("a", "", "a")),
        ("type=env,id=a,src=T", SecretSource("a", "", "T")),
        ("type=file,id=a", SecretSource("a", "a")),
        ('id=a,"src=/x,y"', SecretSource("a", "/x,y")),
    ],
)
def test_secret(text: str, source: SecretSource) -> None:
    assert parse_secret(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "id",
        "id=",
        "src=/f",
        "id=a,src=",
        "id=a,id=b",
        "id=a,value=x",
        "id=a,type=raw",
        "id=a,src=f,env=T",
        '"',
    ],
)
def test_no_secret(text: str) -> None:
    with pytest.raises(UsageError, match="invalid secret") as caught:
        parse_secret(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("default", AgentSource("default")),
        ("default=/s", AgentSource("default", ("/s",))),
        ("x=a,b", AgentSource("x", ("a", "b"))),
    ],
)
def test_agent(text: str, source: AgentSource) -> None:
    assert parse_agent(text) == source


@pytest.mark.parametrize("text", ["", "=x", "x=", "x=a,,b", "a b=c"])
def test_no_agent(text: str) -> None:
    with pytest.raises(UsageError, match="invalid SSH agent"):
        parse_agent(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("db:10.0.0.7", ("db", "10.0.0.7")),
        ("db=10.0.0.7", ("db", "10.0.0.7")),
        ("a.b-c:::1", ("a.b-c", "::1")),
        ("a=[::1]", ("a", "::1")),
        ("host:host-gateway", ("host", "host-gateway")),
    ],
)
def test_host(text: str, host: tuple[str, str]) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text", ["", "db", "db:", ":1.2.3.4", "db:1.2.3", "a b:1.2.3.4", "a\n:1.2.3.4", "db:1.2.3.4\n"]
)
def test_no_host(text: str) -> None:
    with pytest.raises(UsageError, match="invalid host"):
        parse_host(text)


def test_entitlements() -> None:
    assert parse_entitlements(["network.host", "security.insecure,network.host"]) == (
        "network.host",
        "security.insecure",
    )
    assert parse_entitlements(["device", "device=a.b/c=d,device=gpu"]) == ("device", "device=a.b/c=d", "device=gpu")
    for text in ("root", "device=", "devices", "network.host=1"):
        with pytest.raises(UsageError, match=f"unknown entitlement '{text}'"):
            parse_entitlements([text])


def test_an_id_stands_once() -> None:
    unique([AgentSource("a"), AgentSource("b")], flag="--ssh")
    with pytest.raises(UsageError, match="--secret gives 'a' twice"):
        unique([SecretSource("a", "x"), SecretSource("a", "y")], flag="--secret")
