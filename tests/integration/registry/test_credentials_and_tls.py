"""Who is told credentials, and whose certificates count (rows 43 to 47 of the security specification)."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minidock.registry.credentials import CredentialFiles, Credentials
from tests.conftest import Minidock
from tests.integration.registry.conftest import Puller
from tests.integration.registry.evilreg import EvilRegistry, Exchange, layer

GOOD = layer({"file": b"content" * 1000})
USER, PASSWORD = "somebody", "S3cret-pass"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
IDENTITY, TOKEN = "Identity-t0ken", "Bearer-t0ken"
HOST = "registry.example.test"

Login = Callable[..., None]
Helper = Callable[[str], Path]


@pytest.fixture
def world(evil: EvilRegistry, monkeypatch: pytest.MonkeyPatch) -> EvilRegistry:
    """A world in which every host is this registry, over HTTP."""
    monkeypatch.setenv("http_proxy", evil.url)
    monkeypatch.setenv("https_proxy", evil.url)
    evil.image("a", GOOD)
    return evil


@pytest.fixture
def known(world: EvilRegistry, puller: Puller, login: Login) -> Puller:
    """A puller that has credentials for HOST, and may speak to it without TLS."""
    puller.configure(insecure_registries=[HOST])
    login(auths={HOST: {"auth": BASIC}})
    return puller


def guarded(registry: EvilRegistry, host: str, expected: str, challenge: str) -> None:
    """Have ``host`` answer 401 to whoever does not give the expected authorization."""

    def act(exchange: Exchange) -> None:
        if exchange.asked.headers.get("authorization") == expected:
            registry.serve(exchange)
        else:
            exchange.answer(401, WWW_Authenticate=challenge)

    registry.on(f"^{host}/v2/", act)


def token_server(registry: EvilRegistry, host: str) -> None:
    registry.on(f"^{host}/token", lambda e: e.answer(200, json.dumps({"access_token": TOKEN})))


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helper:
    """Put the credential helper ``mine`` on the PATH; the file in which it notes what it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(script: str) -> Path:
        log = folder / "mine.log"
        program = folder / "docker-credential-mine"
        program.write_text(f'#!/bin/sh\nread -r line\necho "$1 $line" >> {log}\n{script}\n')
        program.chmod(0o755)
        return log

    return make


def test_row_43_a_password_is_given_to_the_registry_alone(world: EvilRegistry, known: Puller) -> None:
    guarded(world, HOST, f"Basic {BASIC}", 'Basic realm="x"')
    world.on(f"^{HOST}/v2/a/blobs/{GOOD.digest}", lambda e: e.answer(307, Location="http://storage.test/x?sig=y"))
    world.on("^storage.test/x", lambda e: e.answer(200, GOOD.data))
    assert known(f"{HOST}/a")[0].fresh
    assert world.with_secret(PASSWORD) == {HOST}
    assert "authorization" not in next(asked for asked in world.asked if asked.host == "storage.test").headers


@pytest.mark.parametrize(
    "challenge", ['Basic realm="x"', f'Bearer realm="http://{HOST}/token"', 'Bearer realm="http://storage.test/t"']
)
def test_row_43_another_host_that_asks_is_given_nothing(world: EvilRegistry, known: Puller, challenge: str) -> None:
    world.on(f"^{HOST}/v2/a/blobs/{GOOD.digest}", lambda e: e.answer(302, Location="http://storage.test/x"))
    world.on("^storage.test/x", lambda e: e.answer(401, WWW_Authenticate=challenge))
    assert "denies access" in known.refuse(f"{HOST}/a").message
    assert world.with_secret(PASSWORD) == set()
    assert world.paths("/t") == []


def test_row_43_a_realm_elsewhere_is_asked_without_credentials(world: EvilRegistry, known: Puller) -> None:
    guarded(world, HOST, f"Bearer {TOKEN}", 'Bearer realm="http://attacker.test/token",service="s"')
    token_server(world, "attacker.test")
    assert known(f"{HOST}/a")[0].fresh
    assert world.with_secret(PASSWORD) == set()
    assert world.paths("/token") == ["/token?service=s&scope=repository%3Aa%3Apull"]


def test_row_43_a_realm_of_the_same_organisation_is_given_them(world: EvilRegistry, known: Puller) -> None:
    guarded(world, HOST, f"Bearer {TOKEN}", 'Bearer realm="http://auth.example.test/token?x=1",service="s"')
    token_server(world, "auth.example.test")
    assert known(f"{HOST}/a")[0].fresh
    assert world.with_secret(PASSWORD) == {"auth.example.test"}
    assert world.paths("/token") == [f"/token?x=1&service=s&account={USER}&scope=repository%3Aa%3Apull"]


def test_row_43_the_urls_of_a_foreign_layer_are_never_asked(world: EvilRegistry, known: Puller) -> None:
    media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    manifest = json.loads(world.manifests["a", "latest"][1])
    manifest["layers"][0] |= {"mediaType": media_type, "urls": ["http://attacker.test/layer"]}
    world.manifest("a", manifest)
    assert "which is not read" in known.refuse(f"{HOST}/a").message
    assert {asked.host for asked in world.asked} == {HOST}


def test_an_identity_token_is_exchanged(world: EvilRegistry, puller: Puller, login: Login) -> None:
    puller.configure(insecure_registries=[HOST])
    login(auths={f"http://{HOST}/v1/": {"auth": "", "identitytoken": IDENTITY}})
    guarded(world, HOST, f"Bearer {TOKEN}", f'Bearer realm="http://{HOST}/token",service="s"')
    token_server(world, HOST)
    assert puller(f"{HOST}/a")[0].fresh
    asked = next(asked for asked in world.asked if asked.path == "/token")
    assert asked.method == "POST"
    assert f"refresh_token={IDENTITY}" in asked.body.decode()
    assert "grant_type=refresh_token" in asked.body.decode()


def test_a_token_that_is_over_is_asked_for_anew(world: EvilRegistry, known: Puller) -> None:
    tokens = iter(["one", "two", "three"])
    challenge = f'Bearer realm="http://{HOST}/token",service="s"'
    world.on("/token", lambda e: e.answer(200, json.dumps({"token": next(tokens)})))

    def act(exchange: Exchange) -> None:
        wanted = "Bearer one" if "manifests" in exchange.path else "Bearer two"
        if exchange.asked.headers.get("authorization") == wanted:
            world.serve(exchange)
        else:
            exchange.answer(401, WWW_Authenticate=challenge)

    world.on("/v2/", act)
    assert known(f"{HOST}/a")[0].fresh
    assert len(world.paths("/token")) == 2


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"http://{HOST}/v2/"])
def test_the_forms_of_docker_s_file(world: EvilRegistry, puller: Puller, login: Login, key: str) -> None:
    puller.configure(insecure_registries=[HOST])
    login(auths={"other.test": {"auth": "eDp5"}, key: {"username": USER, "password": PASSWORD}})
    guarded(world, HOST, f"Basic {BASIC}", 'Basic realm="x"')
    assert puller(f"{HOST}/a")[0].fresh


def test_a_file_that_is_damaged_is_named(world: EvilRegistry, known: Puller, home: Path) -> None:
    guarded(world, HOST, f"Basic {BASIC}", 'Basic realm="x"')
    path = home / ".docker/config.json"
    for text, message in (
        ("{", f"{path} is not valid JSON"),
        ("[]", f"{path} is not a JSON object"),
        (json.dumps({"auths": {HOST: {"auth": "%%"}}}), f"{path}: the credentials of {HOST} cannot be read"),
    ):
        path.write_text(text)
        assert known.refuse(f"{HOST}/a").message.startswith(message)


HELPED = f'echo \'{{"ServerURL": "x", "Username": "{USER}", "Secret": "{PASSWORD}"}}\''


@pytest.mark.parametrize("members", [{"credsStore": "mine"}, {"credHelpers": {HOST: "mine"}, "credsStore": "other"}])
def test_a_helper_is_asked(
    world: EvilRegistry, puller: Puller, login: Login, helper: Helper, members: dict[str, object]
) -> None:
    log = helper(HELPED)
    puller.configure(insecure_registries=[HOST])
    login(auths={HOST: {}}, **members)
    guarded(world, HOST, f"Basic {BASIC}", 'Basic realm="x"')
    assert puller(f"{HOST}/a")[0].fresh
    assert log.read_text() == f"get {HOST}\n"


FAILING = {
    "not installed": ("", "docker-credential-mine is not installed"),
    "a failure": ("echo no such keyring; exit 1", "docker-credential-mine failed: no such keyring"),
    "a failure that tells": (f"{HELPED}; exit 1", "docker-credential-mine failed: status 1"),
    "nonsense": ("echo hello", "docker-credential-mine gave no credentials that can be read"),
    "a list": ("echo '[]'", "docker-credential-mine gave no credentials that can be read"),
}


@pytest.mark.parametrize("case", FAILING)
def test_row_45_a_helper_that_fails_gives_none(
    world: EvilRegistry, puller: Puller, login: Login, helper: Helper, case: str
) -> None:
    """No other credentials stand in for it, neither the file's own nor another registry's."""
    script, message = FAILING[case]
    if script:
        helper(script)
    puller.configure(insecure_registries=[HOST])
    login(auths={HOST: {"auth": BASIC}, "docker.io": {"auth": BASIC}}, credHelpers={HOST: "mine"})
    guarded(world, HOST, f"Basic {BASIC}", 'Basic realm="x"')
    error = puller.refuse(f"{HOST}/a")
    assert message in error.message
    assert PASSWORD not in str(error)
    assert world.with_secret(PASSWORD) == set()


def test_row_45_credentials_of_one_registry_go_to_no_other(world: EvilRegistry, known: Puller) -> None:
    known.configure(insecure_registries=["other.example.test"])
    guarded(world, "other.example.test", f"Basic {BASIC}", 'Basic realm="x"')
    error = known.refuse("other.example.test/a")
    assert error.hint == "`minidock login other.example.test`"
    assert world.with_secret(PASSWORD) == set()


def test_a_helper_that_has_none_is_no_failure(
    world: EvilRegistry, puller: Puller, login: Login, helper: Helper
) -> None:
    helper("echo credentials not found in native keychain; exit 1")
    puller.configure(insecure_registries=[HOST])
    login(credsStore="mine")
    guarded(world, HOST, f"Bearer {TOKEN}", f'Bearer realm="http://{HOST}/token"')
    token_server(world, HOST)
    assert puller(f"{HOST}/a")[0].fresh


@pytest.mark.parametrize("name", ["../../bin/sh", "", "a/b", "-x"])
def test_a_helper_of_no_possible_name_is_not_run(world: EvilRegistry, puller: Puller, login: Login, name: str) -> None:
    puller.configure(insecure_registries=[HOST])
    login(credHelpers={HOST: name})
    guarded(world, HOST, f"Basic {BASIC}", 'Basic realm="x"')
    assert ("has no possible name" if name else "denies access") in puller.refuse(f"{HOST}/a").message


def test_row_46_no_secret_is_told_at_debug(
    world: EvilRegistry, command: Minidock, login: Login, tmp_path: Path, evil: EvilRegistry
) -> None:
    (tmp_path / "config.toml").write_text(f'insecure_registries = ["{HOST}"]\n')
    login(auths={HOST: {"auth": BASIC}})
    for name in ("http_proxy", "https_proxy"):
        command.environment[name] = evil.url.replace("//", "//proxy:Pr0xy-pass@")
    command.environment["HOME"] = os.environ["HOME"]
    guarded(world, HOST, f"Bearer {TOKEN}", f'Bearer realm="http://{HOST}/token",service="s"')
    token_server(world, HOST)
    world.on("/storage", lambda e: e.answer(200, GOOD.data))
    world.on(f"blobs/{GOOD.digest}", lambda e: e.answer(307, Location="http://storage.test/storage?X-Sig=S1gnature"))
    done = command("--debug", "pull", f"{HOST}/a")
    said = done.stdout + done.stderr
    assert f"registry: token from http://{HOST}/token: 200" in said
    assert "registry: GET http://storage.test/storage: 200" in said
    assert world.with_secret(PASSWORD) == {HOST}
    for secret in (PASSWORD, BASIC, TOKEN, "S1gnature", "Pr0xy-pass"):
        assert secret not in said
    world.clear()
    guarded(world, HOST, "nothing", f'Bearer realm="http://{HOST}/token",service="s"')
    token_server(world, HOST)
    done = command("--debug", "pull", f"{HOST}/a", status=1)
    for secret in (PASSWORD, BASIC, TOKEN, "Pr0xy-pass"):
        assert secret not in done.stdout + done.stderr


@pytest.fixture
def no_mask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_row_47_files_are_for_their_owner_alone(no_mask: None, tmp_path: Path) -> None:
    files = CredentialFiles({"HOME": str(tmp_path / "people/me")})
    files.save("a.test", Credentials("u", "p"))
    written = tmp_path / "people/me/.docker/config.json"
    assert files.write == str(written)
    assert _mode(written) == 0o600
    for folder in (written.parent, written.parent.parent, written.parent.parent.parent):
        assert _mode(folder) == 0o700
    written.chmod(0o644)
    files.save("b.test", Credentials("", "identity"))
    assert _mode(written) == 0o600
    assert [path.name for path in written.parent.iterdir() if not path.name.startswith(".")] == ["config.json"]
    assert files.find("a.test") == Credentials("u", "p")
    assert files.find("b.test") == Credentials("", "identity")
    assert repr(files.find("a.test")) == "Credentials(...)"


def test_row_47_what_a_link_leads_to_is_changed(tmp_path: Path) -> None:
    """A person's dotfiles; the link stays, and what else is in the file stays, too."""
    real = tmp_path / "dotfiles/docker.json"
    real.parent.mkdir()
    real.write_text(json.dumps({"psFormat": "x", "auths": {"old.test": {"auth": "eDp5"}}}))
    link = tmp_path / ".docker/config.json"
    link.parent.mkdir()
    link.symlink_to(real)
    files = CredentialFiles({"HOME": str(tmp_path)})
    files.save("a.test", Credentials("u", "p"))
    assert link.is_symlink()
    assert _mode(real) == 0o600
    assert json.loads(real.read_text())["psFormat"] == "x"
    assert files.find("old.test") == Credentials("x", "y")
    assert files.find("a.test") == Credentials("u", "p")
    assert files.erase("a.test")
    assert not files.erase("a.test")
    assert files.find("a.test") is None


def test_row_47_logins_at_once_lose_none(tmp_path: Path) -> None:
    files = CredentialFiles({"HOME": str(tmp_path)})
    threads = [threading.Thread(target=files.save, args=(f"{n}.test", Credentials("u", str(n)))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [files.find(f"{n}.test") for n in range(20)] == [Credentials("u", str(n)) for n in range(20)]


def test_a_helper_keeps_what_is_saved(tmp_path: Path, helper: Helper) -> None:
    log = helper(HELPED)
    folder = tmp_path / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text('{"credsStore": "mine"}')
    files = CredentialFiles({"HOME": str(tmp_path)})
    assert files.save("docker.io", Credentials("", "identity")) == "the helper docker-credential-mine"
    assert files.erase("docker.io")
    stored, *others = log.read_text().splitlines()
    assert json.loads(stored.removeprefix("store ")) == {
        "ServerURL": "https://index.docker.io/v1/",
        "Username": "<token>",
        "Secret": "identity",
    }
    assert others == ["get https://index.docker.io/v1/", "erase https://index.docker.io/v1/"]
    assert (folder / "config.json").read_text() == '{"credsStore": "mine"}'


def test_mirrors_are_asked_first_and_passed_over(world: EvilRegistry, puller: Puller, login: Login) -> None:
    """One that does not answer, one that lies, one that lacks the image; the last one has it."""
    hosts = ["gone.test", "liar.test", "empty.test", "good.test"]
    puller.configure(insecure_registries=[HOST, *hosts], registry_mirrors={HOST: [f"http://{host}" for host in hosts]})
    login(auths={HOST: {"auth": BASIC}})
    world.on("^gone.test/", lambda e: e.hang_up())
    world.on("^liar.test/.*blobs/", lambda e: e.answer(200, b"something else"))
    world.on("^empty.test/", lambda e: e.answer(404))
    guarded(world, "good.test", f"Bearer {TOKEN}", 'Bearer realm="http://good.test/token"')
    token_server(world, "good.test")
    found = puller(f"{HOST}/a")[0]
    assert found.name == f"{HOST}/a:latest"
    assert list(dict.fromkeys(asked.host for asked in world.asked)) == hosts
    assert len([asked for asked in world.asked if asked.host == "gone.test"]) == 2
    assert world.with_secret(PASSWORD) == set()


def test_a_mirror_stands_in_no_way(world: EvilRegistry, puller: Puller) -> None:
    puller.configure(insecure_registries=[HOST, "m.test"], registry_mirrors={HOST: ["http://m.test"]})
    world.on("^m.test/", lambda e: e.answer(500))
    assert puller(f"{HOST}/a")[0].fresh
    assert puller.waits == [0.5]


def test_names_without_a_host_go_to_the_default_registry(world: EvilRegistry, puller: Puller) -> None:
    puller.configure(default_registry="http://hub.test", insecure_registries=["hub.test"])
    world.image("library/small", GOOD)
    assert puller("small")[0].name == "docker.io/library/small:latest"
    assert {asked.host for asked in world.asked} == {"hub.test"}


def test_row_44_a_certificate_that_nobody_knows_is_refused(evil_tls: EvilRegistry, puller: Puller) -> None:
    evil_tls.image("a", GOOD)
    error = puller.refuse(f"{evil_tls.host}/a")
    assert error.message.startswith(f"cannot pull {evil_tls.host}/a:latest: {evil_tls.host}: its certificate is not")
    assert error.hint == f"put its authority's certificate into /etc/minidock/certs.d/{evil_tls.host}/ca.crt"
    assert evil_tls.asked == []


def test_row_44_another_host_that_is_insecure_changes_nothing(evil_tls: EvilRegistry, puller: Puller) -> None:
    evil_tls.image("a", GOOD)
    puller.configure(insecure_registries=["127.0.0.1", "localhost", "127.0.0.1:1"])
    assert "its certificate is not valid" in puller.refuse(f"{evil_tls.host}/a").message


def test_row_44_insecure_is_for_the_host_that_is_named(evil_tls: EvilRegistry, puller: Puller) -> None:
    evil_tls.image("a", GOOD)
    puller.configure(insecure_registries=[evil_tls.host])
    assert puller(f"{evil_tls.host}/a")[0].fresh


def test_row_44_an_authority_counts_for_its_host(
    evil_tls: EvilRegistry, puller: Puller, certificate: Path, tmp_path: Path
) -> None:
    evil_tls.image("a", GOOD)
    folder = tmp_path / "certs" / evil_tls.host
    folder.mkdir(parents=True)
    puller.configure(registry_certificates=[str(tmp_path / "certs")])
    assert "its certificate is not valid" in puller.refuse(f"{evil_tls.host}/a").message
    (folder / "ca.crt").write_text("nonsense")
    assert f"cannot use the certificate {folder}/ca.crt" in puller.refuse(f"{evil_tls.host}/a").message
    (folder / "ca.crt").write_bytes((certificate.parent / "cert.pem").read_bytes())
    assert puller(f"{evil_tls.host}/a")[0].fresh


def test_row_44_no_way_leads_from_https_to_http(evil_tls: EvilRegistry, evil: EvilRegistry, puller: Puller) -> None:
    evil_tls.image("a", GOOD)
    evil.image("a", GOOD)
    puller.configure(insecure_registries=[evil_tls.host])
    evil_tls.on(f"blobs/{GOOD.digest}", lambda e: e.answer(307, Location=f"{evil.url}{e.asked.path}"))
    error = puller.refuse(f"{evil_tls.host}/a")
    assert error.message.endswith("redirects from https to http, which is not followed")
    evil_tls.clear()
    evil_tls.on("manifests", lambda e: e.answer(401, WWW_Authenticate=f'Bearer realm="{evil.url}/token"'))
    assert "wants a token to be asked for without TLS" in puller.refuse(f"{evil_tls.host}/a").message
    assert evil.asked == []


def test_row_44_a_host_that_is_not_allowed_it_is_not_spoken_to_without_tls(world: EvilRegistry, puller: Puller) -> None:
    error = puller.refuse(f"{HOST}/a")
    assert error.message.startswith(f"cannot pull {HOST}/a:latest: {HOST}: ")
    assert world.asked == []
