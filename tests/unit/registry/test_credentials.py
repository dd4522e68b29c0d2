"""Where credentials are looked for, and for whom they count."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import CorruptObjectError, RegistryError
from minidock.registry.credentials import CredentialFiles, Credentials


def files(home: Path, docker: Any = None, own: Any = None, **environ: str) -> CredentialFiles:
    for value, path in ((docker, home / ".docker/config.json"), (own, home / ".config/minidock/auth.json")):
        if value is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))
    return CredentialFiles({"HOME": str(home), **environ})


def auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_the_first_file_that_has_some(tmp_path: Path) -> None:
    docker = {"auths": {"a.test": {"auth": auth("docker:1")}, "b.test": {"auth": auth("docker:2")}}}
    found = files(tmp_path, docker, {"auths": {"a.test": {"auth": auth("own:1")}}})
    assert found.find("a.test") == Credentials("own", "1")
    assert found.find("b.test") == Credentials("docker", "2")
    assert found.find("c.test") is None
    assert found.write == str(tmp_path / ".config/minidock/auth.json")


def test_where_the_files_are(tmp_path: Path) -> None:
    assert files(tmp_path).write == str(tmp_path / ".docker/config.json")
    assert files(tmp_path, DOCKER_CONFIG="/d").write == "/d/config.json"
    assert files(tmp_path, XDG_CONFIG_HOME="/x").paths[0] == "/x/minidock/auth.json"
    named = files(tmp_path, MINIDOCK_AUTH_FILE="/m.json")
    assert (named.paths, named.write) == (("/m.json",), "/m.json")


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"])
def test_the_names_of_docker_hub(tmp_path: Path, key: str) -> None:
    found = files(tmp_path, {"auths": {key: {"auth": auth("me:pw")}}})
    assert found.find("docker.io") == Credentials("me", "pw")
    assert found.find("a.test") is None


@pytest.mark.parametrize("key", ["a.test.evil", "evil.a.test", "https://evil/a.test", "a.test:5000", "http://x@a.test"])
def test_another_host_s_are_not_taken(tmp_path: Path, key: str) -> None:
    assert files(tmp_path, {"auths": {key: {"auth": auth("me:pw")}}}).find("a.test") is None


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"auth": auth("me:p:w:")}, Credentials("me", "p:w:")),
        ({"auth": auth("me:pw\0\0")}, Credentials("me", "pw")),
        ({"auth": auth("me:")}, Credentials("me", "")),
        ({"username": "me", "password": "pw"}, Credentials("me", "pw")),
        ({"auth": "", "identitytoken": "t"}, Credentials("", "t")),
        ({"auth": auth("me:pw"), "identitytoken": "t"}, Credentials("", "t")),
        ({}, None),
        ({"auth": ""}, None),
        ({"email": "x"}, None),
        ("text", None),
    ],
)
def test_the_forms_of_an_entry(tmp_path: Path, entry: Any, found: Credentials | None) -> None:
    assert files(tmp_path, {"auths": {"a.test": entry}}).find("a.test") == found


@pytest.mark.parametrize("value", ["%%%", "w6k", 5, "\u00e9", auth("x")[:-1], base64.b64encode(b"\xff\xfe:x").decode()])
def test_an_entry_that_is_damaged(tmp_path: Path, value: Any) -> None:
    found = files(tmp_path, {"auths": {"a.test": {"auth": value}, "b.test": {"auth": auth("me:pw")}}})
    with pytest.raises(CorruptObjectError, match=r"the credentials of a.test cannot be read") as caught:
        found.find("a.test")
    assert caught.value.hint == "run `minidock login a.test`"
    assert found.find("b.test") == Credentials("me", "pw")


@pytest.mark.parametrize("members", [{"auths": []}, {"auths": None}, {"credHelpers": []}, {"credsStore": ""}])
def test_members_of_another_kind_are_none(tmp_path: Path, members: Any) -> None:
    assert files(tmp_path, members).find("a.test") is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".docker/config.json").mkdir(parents=True)
    with pytest.raises((RegistryError, CorruptObjectError), match=r"config\.json"):
        files(tmp_path).find("a.test")


def test_a_home_that_is_none() -> None:
    assert CredentialFiles({"HOME": "/dev/null"}).find("a.test") is None
