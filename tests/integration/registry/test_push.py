"""Pushes to Debian's registry, and what others then read from it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from minidock import Engine
from minidock.engine import pulling, pushing
from minidock.engine.transfers import PROGRESS, Event
from minidock.errors import NoSuchImageError, RegistryError, StoreError, UsageError
from minidock.model.oci import LAYER_GZIP
from minidock.registry import upload
from minidock.registry.retry import Patience
from tests.integration.registry.conftest import RealRegistry
from tests.integration.registry.evilreg import EvilRegistry, layer

QUICK = Patience(tries=2, sleep=lambda _: None)


@pytest.fixture
def served(fresh_real: RealRegistry) -> str:
    """Debian's registry on loopback, with nothing in it: its HOST:PORT."""
    return fresh_real.host


@pytest.fixture
def engine(minidock: Any, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine on the data root of ``minidock``."""
    monkeypatch.setenv("MINIDOCK_CONFIG", minidock.environment["MINIDOCK_CONFIG"])
    return Engine(str(minidock.root))


def manifest_of(name: str) -> dict[str, Any]:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def states(engine: Engine, name: str) -> tuple[list[str], pushing.Pushed]:
    """What became of the layers of a push, and what it sent."""
    events: list[Event] = []
    (pushed,) = pushing.push(engine, name, tell=events.append, patience=QUICK)
    return [event.state for event in events if event.state not in {"Preparing", *PROGRESS}], pushed


def test_what_was_built_here_is_compressed_and_goes_once(
    minidock: Any, engine: Engine, context: Any, served: str
) -> None:
    name = f"{served}/some/app"
    minidock.build(context("FROM busybox\nCOPY f /f\n", {"f": "content\n"}), "-t", f"{name}:1")
    done = minidock("push", f"{name}:1")
    assert "Compressing" not in done.stdout
    assert f"The push refers to repository [{name}]" in done.stdout
    manifest = manifest_of(f"{name}:1")
    assert {layer["mediaType"] for layer in manifest["layers"]} == {LAYER_GZIP}
    assert manifest["config"]["digest"] == minidock.out("images", "-q", "--no-trunc", f"{name}:1")
    again, pushed = states(engine, f"{name}:1")
    assert set(again) == {"Layer already exists"}
    assert f"1: digest: {pushed.digest} size: {pushed.size}" in done.stdout
    assert f"{name}@{pushed.digest}" in json.loads(minidock.out("image", "inspect", f"{name}:1"))[0]["RepoDigests"]
    assert minidock.out("run", "--rm", "--network", "none", f"{name}@{pushed.digest}", "cat", "/f") == "content"


def test_another_repository_of_the_registry_lends_its_layers(minidock: Any, engine: Engine, served: str) -> None:
    minidock("tag", "busybox", f"{served}/first")
    minidock("tag", "busybox", f"{served}/second")
    assert states(engine, f"{served}/first")[0] == ["Pushed"]
    assert states(engine, f"{served}/second")[0] == ["Mounted from first"]
    assert manifest_of(f"{served}/second") == manifest_of(f"{served}/first")


def test_what_was_pulled_goes_back_bit_for_bit(
    minidock: Any, minidock_at: Any, tmp_path: Path, served: str, engine: Engine
) -> None:
    minidock("tag", "busybox", f"{served}/one:tag")
    sent = states(engine, f"{served}/one:tag")[1]
    other = minidock_at(tmp_path / "other")
    try:
        other("pull", f"{served}/one:tag")
        other("tag", f"{served}/one:tag", f"{served}/two:again")
        assert f"digest: {sent.digest} " in other("push", f"{served}/two:again").stdout
    finally:
        other.close()


def test_large_layers_go_in_pieces(
    minidock: Any, engine: Engine, served: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(upload, "_WHOLE", 1000)
    monkeypatch.setattr(upload, "_PIECE", 100_000)
    minidock("tag", "busybox", f"{served}/pieces")
    assert states(engine, f"{served}/pieces")[0] == ["Pushed"]
    target = f"dir:{tmp_path / 'copied'}"
    subprocess.run(["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{served}/pieces", target], check=True)


def test_every_name_of_a_repository(minidock: Any, served: str) -> None:
    for tag in ("a", "b"):
        minidock("tag", "busybox", f"{served}/many:{tag}")
    minidock("push", "-q", "-a", f"{served}/many")
    command = ["skopeo", "list-tags", "--tls-verify=false", f"docker://{served}/many"]
    tags = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["Tags"]
    assert sorted(tags) == ["a", "b"]


def test_what_cannot_be_pushed(engine: Engine, minidock: Any) -> None:
    with pytest.raises(NoSuchImageError, match="no such image: nosuch"):
        pushing.push(engine, "nosuch")
    with pytest.raises(NoSuchImageError, match="no image here has a name of nosuch"):
        pushing.push(engine, "nosuch", all_tags=True)
    with pytest.raises(UsageError, match="named by a digest"):
        pushing.push(engine, f"busybox@sha256:{'0' * 64}")
    with pytest.raises(UsageError, match="leave out the tag"):
        pushing.push(engine, "busybox:latest", all_tags=True)
    minidock("tag", "busybox", "127.0.0.1:1/nobody/there")
    with pytest.raises(RegistryError, match=r"cannot push to 127\.0\.0\.1:1/nobody/there: .*Connection refused"):
        pushing.push(engine, "127.0.0.1:1/nobody/there", patience=QUICK)


def ask_for_basic(exchange: Any) -> None:
    exchange.answer(401, WWW_Authenticate='Basic realm="x"')


def test_nobody_but_the_server_gets_the_credentials(
    engine: Engine, minidock: Any, evil: EvilRegistry, login: Any
) -> None:
    """An upload is sent on to another host, without what was said to this one."""
    login(auths={evil.host: {"auth": "dXNlcjpwYXNz"}})
    elsewhere = EvilRegistry()
    try:

        def lead_away(exchange: Any) -> None:
            if exchange.asked.headers.get("authorization"):
                exchange.answer(202, Location=f"{elsewhere.url}/upload")
            else:
                ask_for_basic(exchange)

        evil.on("/v2/app/blobs/uploads/", lead_away)
        elsewhere.on("/upload", lambda exchange: exchange.answer(500))
        minidock("tag", "busybox", f"{evil.host}/app")
        with pytest.raises(RegistryError, match="cannot push to"):
            pushing.push(engine, f"{evil.host}/app", patience=QUICK)
        assert evil.with_secret("user:pass") == {evil.host}
        assert elsewhere.paths("/upload")
        assert elsewhere.with_secret("user:pass", "dXNlcjpwYXNz") == set()
    finally:
        elsewhere.close()


def test_a_login_that_the_registry_refuses_is_not_kept(minidock: Any, evil: EvilRegistry, home: Path) -> None:
    evil.on("/v2/", ask_for_basic)
    minidock.environment["HOME"] = str(home)
    done = minidock("login", "-u", "me", "--password-stdin", evil.host, stdin="wrong\n", status=1, timeout=30)
    assert "denies access" in done.stderr
    assert "wrong" not in done.stdout + done.stderr
    assert not (home / ".docker").exists()


def test_login_and_logout(minidock: Any, evil: EvilRegistry, home: Path) -> None:
    def ask(exchange: Any) -> None:
        if exchange.asked.headers.get("authorization") == "Basic bWU6c2VjcmV0":
            exchange.answer(200)
        else:
            ask_for_basic(exchange)

    evil.on("/v2/", ask)
    minidock.environment["HOME"] = str(home)
    config = home / ".docker/config.json"
    done = minidock("login", "-u", "me", "--password-stdin", evil.host, stdin="secret\n")
    assert done.stdout == f"Login Succeeded, kept in {config}\n"
    assert config.stat().st_mode & 0o7777 == 0o600
    assert config.parent.stat().st_mode & 0o7777 == 0o700
    assert json.loads(config.read_text())["auths"] == {evil.host: {"auth": "bWU6c2VjcmV0"}}
    assert minidock("logout", evil.host).stdout == f"Removing login credentials for {evil.host}\n"
    assert minidock("logout", evil.host).stdout == f"Not logged in to {evil.host}\n"
    assert json.loads(config.read_text())["auths"] == {}
    assert "without a terminal" in minidock("login", evil.host, status=125).stderr


def test_a_base_that_was_pulled_goes_as_its_registry_has_it(
    minidock: Any, minidock_at: Any, tmp_path: Path, context: Any, served: str
) -> None:
    """An image on top of it is sent with the base's own compressed layers, of whatever docker calls them."""
    minidock("tag", "busybox", f"{served}/base")
    command = ["skopeo", "copy", "-q", "--format", "v2s2", "--src-tls-verify=false", "--dest-tls-verify=false"]
    minidock("push", f"{served}/base")
    subprocess.run([*command, f"docker://{served}/base", f"docker://{served}/base:docker"], check=True)
    base = manifest_of(f"{served}/base:docker")["layers"]
    assert "docker" in base[0]["mediaType"]
    other = minidock_at(tmp_path / "other")
    try:
        folder = context(f"FROM {served}/base:docker\nCOPY f /f\n", {"f": "content\n"})
        other.build(folder, "-t", f"{served}/app")
        done = other("push", f"{served}/app")
        assert "Mounted from base" in done.stdout or "Layer already exists" in done.stdout
    finally:
        other.close()
    layers = manifest_of(f"{served}/app")["layers"]
    assert layers[0]["digest"] == base[0]["digest"]
    assert {one["mediaType"] for one in layers} == {LAYER_GZIP}
    minidock("pull", f"{served}/app")
    assert minidock.out("run", "--rm", "--network", "none", f"{served}/app", "cat", "/f") == "content"


def test_a_full_disk_is_one_sentence(
    minidock: Any, engine: Engine, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pushing, "compress_gzip", full)
    minidock("tag", "busybox", f"{served}/app")
    with pytest.raises(StoreError, match=r"cannot compress the layer sha256:[0-9a-f]+: No space left") as caught:
        pushing.push(engine, f"{served}/app", patience=QUICK)
    assert caught.value.hint
    assert os.listdir(minidock.root / "tmp") == []


def test_the_first_layer_that_fails_ends_a_push(
    engine: Engine, evil: EvilRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that have not begun none is asked for."""
    layers = [layer({f"f{number}": b"content"}) for number in range(12)]
    evil.image("from", *layers)
    pulling.pull(engine, f"{evil.host}/from", patience=QUICK)
    engine.tag(f"{evil.host}/from", f"{evil.host}/to")
    evil.on("/v2/to/blobs/", lambda exchange: exchange.answer(403))
    with pytest.raises(RegistryError, match="denies access"):
        pushing.push(engine, f"{evil.host}/to", patience=QUICK)
    assert len(set(evil.paths("/v2/to/blobs/"))) < 12


def test_where_an_upload_leads_is_not_shown_whole(engine: Engine, minidock: Any, evil: EvilRegistry) -> None:
    place = "ftp://user:secret@elsewhere/path?signature=secret"
    evil.on("/v2/app/blobs/uploads/", lambda exchange: exchange.answer(202, Location=place))
    minidock("tag", "busybox", f"{evil.host}/app")
    with pytest.raises(RegistryError, match="no place to go") as caught:
        pushing.push(engine, f"{evil.host}/app", patience=QUICK)
    assert "secret" not in str(caught.value)


def test_a_login_where_nobody_asks(minidock: Any, evil: EvilRegistry, home: Path) -> None:
    minidock.environment["HOME"] = str(home)
    done = minidock("login", "-u", "me", "--password-stdin", evil.host, stdin="secret\n", status=1)
    assert f"{evil.host} took no credentials, so none are kept" in done.stderr
    assert not (home / ".docker").exists()
