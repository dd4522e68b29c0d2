"""Each defence against registries taken down, to see that its attack then succeeds (docs/security-tests.md)."""

from __future__ import annotations

import json
import ssl

import pytest

from minidock.registry import repository, resolve, session
from minidock.registry.credentials import Credentials
from tests.integration.registry.conftest import Puller
from tests.integration.registry.evilreg import EvilRegistry, Layer, layer

GOOD = layer({"file": b"content" * 1000})
OTHER = layer({"other": b"other"})
HOST, PASSWORD = "registry.example.test", "S3cret-pass"


@pytest.fixture
def world(evil: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch) -> EvilRegistry:
    """Every host is this registry; credentials for HOST are there."""
    monkeypatch.setenv("http_proxy", evil.url)
    monkeypatch.setenv("https_proxy", evil.url)
    monkeypatch.setattr("minidock.registry.credentials.CredentialFiles.find", lambda *_: Credentials("me", PASSWORD))
    puller.configure(insecure_registries=[HOST])
    evil.image("a", GOOD)
    evil.on("/token", lambda e: e.answer(200, json.dumps({"token": "t"})))
    return evil


def test_row_39_without_the_pairs_an_image_is_not_what_it_says(
    evil: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil.image("one", GOOD)
    evil.image("two", OTHER)
    puller(f"{evil.host}/one")
    puller(f"{evil.host}/two")
    evil.image("evil", Layer(GOOD.data, GOOD.media_type, OTHER.diff_id))
    puller.refuse(f"{evil.host}/evil")
    monkeypatch.setattr("minidock.engine.pulling._Layers._check_pair", lambda *_: None)
    assert puller(f"{evil.host}/evil")[0].fresh


def test_row_40_without_the_grammar_a_digest_is_a_path(
    evil: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil.image("a", GOOD)
    manifest = json.loads(evil.manifests["a", "latest"][1])
    manifest["config"]["digest"] = "sha256:../../../../etc/passwd"
    evil.manifest("a", manifest)
    puller.refuse(f"{evil.host}/a")
    assert not evil.paths("passwd")
    monkeypatch.setattr("minidock.model.oci.is_digest", lambda _: True)
    puller.refuse(f"{evil.host}/a")
    assert evil.paths("passwd")


def test_row_41_without_the_look_an_image_is_an_index_too(
    evil: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil.image("a", GOOD)
    manifest = json.loads(evil.manifests["a", "latest"][1])
    evil.manifest("a", {**manifest, "fsLayers": []})
    puller.refuse(f"{evil.host}/a")
    monkeypatch.setattr(repository, "_media_type", lambda value, *_: value["mediaType"])
    assert puller(f"{evil.host}/a")[0].fresh


def test_row_42_without_the_cap_all_of_it_is_read(
    evil: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil.on("manifests", lambda e: e.answer(200, b" " * (20 << 20)))
    puller.refuse(f"{evil.host}/a")
    sent = evil.sent
    assert sent < 15 << 20
    monkeypatch.setattr(repository, "MAX_MANIFEST", 1 << 40)
    assert "is not valid JSON" in puller.refuse(f"{evil.host}/a").message
    assert evil.sent - sent == 20 << 20


def test_row_43_without_the_look_at_the_host_a_redirect_carries_the_password(
    world: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.on(
        f"^{HOST}/v2/",
        lambda e: world.serve(e) if "authorization" in e.asked.headers else e.answer(401, WWW_Authenticate="Basic x=y"),
    )
    world.on(f"^{HOST}/v2/a/blobs/{GOOD.digest}", lambda e: e.answer(307, Location="http://attacker.test/x"))
    world.on("^attacker.test/", lambda e: e.answer(200, GOOD.data))
    monkeypatch.setattr(session.Session, "_is_own", lambda *_: True)
    assert puller(f"{HOST}/a")[0].fresh
    assert world.with_secret(PASSWORD) == {HOST, "attacker.test"}


def test_row_43_without_the_look_at_the_realm_it_is_told_the_password(
    world: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    challenge = 'Bearer realm="http://attacker.test/token"'
    world.on("manifests", lambda e: e.answer(401, WWW_Authenticate=challenge), times=1)
    monkeypatch.setattr(session, "may_know", lambda *_: True)
    assert puller(f"{HOST}/a")[0].fresh
    assert world.with_secret(PASSWORD) == {"attacker.test"}


def test_row_44_without_the_certificate_anybody_is_the_registry(
    evil_tls: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil_tls.image("a", GOOD)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    puller.refuse(f"{evil_tls.host}/a")
    monkeypatch.setattr(session, "tls_context", lambda *_: context)
    assert puller(f"{evil_tls.host}/a")[0].fresh


def test_row_39_without_the_comparison_two_diff_ids_are_one(
    evil: EvilRegistry, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told before anything is fetched; behind it stands the check of what was fetched."""
    evil.image("a", GOOD, Layer(GOOD.data, GOOD.media_type, OTHER.diff_id))
    puller.refuse(f"{evil.host}/a")
    assert not evil.paths(GOOD.digest)
    monkeypatch.setattr(resolve, "_check_layers", lambda *_: None)
    puller.refuse(f"{evil.host}/a")
    assert evil.paths(GOOD.digest)
