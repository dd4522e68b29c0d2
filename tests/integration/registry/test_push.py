"""Pushes to Debian's registry, and what others then read from it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock import Engine
from minidock.engine import pulling, pushing
from minidock.errors import NoSuchImageError, RegistryError, UsageError
from minidock.registry import upload
from minidock.registry.retry import Patience
from tests.integration.registry.evilreg import EvilRegistry

QUICK = Patience(tries=2, sleep=lambda _: None)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Debian's registry on loopback: its HOST:PORT."""
    program = shutil.which("docker-registry")
    assert program, "tests/run installs docker-registry"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path / 'registry'}\nhttp:\n  addr: {host}\n"
    )
    with subprocess.Popen([program, "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", int(host.partition(":")[2]))) == 0:
                    break
            time.sleep(0.05)
        yield host
        process.terminate()


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
    events: list[pulling.Event] = []
    (pushed,) = pushing.push(engine, name, tell=events.append, patience=QUICK)
    return [event.state for event in events if event.state not in ("Preparing", "Pushing")], pushed


def test_what_was_built_here_is_compressed_and_goes_once(
    minidock: Any, engine: Engine, context: Any, served: str
) -> None:
    name = f"{served}/some/app"
    minidock.build(context("FROM busybox\nCOPY f /f\n", {"f": "content\n"}), "-t", f"{name}:1")
    done = minidock("push", f"{name}:1")
    assert f"The push refers to repository [{name}]" in done.stdout
    manifest = manifest_of(f"{name}:1")
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
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
    shutil.rmtree(minidock.root.parent / "registry/docker/registry/v2/repositories/second", ignore_errors=True)
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
