"""Pulls: through the engine in this process, and through the command, from registries that a test scripts and from
Debian's own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock import Engine
from minidock.engine import pulling
from minidock.engine.transfers import Event
from minidock.errors import MinidockError
from minidock.registry.retry import Patience
from minidock.store.images import Images
from minidock.store.layout import DataRoot
from tests.conftest import Minidock, unpin
from tests.integration.registry.evilreg import EvilRegistry


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own: nobody's credentials, nobody's proxies."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("DOCKER_CONFIG", "XDG_CONFIG_HOME", "MINIDOCK_AUTH_FILE", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return folder


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of its own for loopback, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    more = ["-subj", "/CN=minidock tests", "-addext", names, "-days", "2", "-keyout", key, "-out", cert]
    subprocess.run([*command, *more], check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


class RealRegistry:
    """Debian's registry on loopback; ``host`` is HOST:PORT. Whoever has it writes with skopeo."""

    def __init__(self, folder: Path, *, certificate: Path | None = None, users: str = "") -> None:
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{probe.getsockname()[1]}"
        self.credentials: tuple[str, ...] = ()
        http: dict[str, Any] = {"addr": self.host}
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": http,
        }
        if certificate is not None:
            http["tls"] = {"certificate": str(certificate), "key": str(certificate)}
        if users:
            (folder / "htpasswd").write_text(users)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
        (folder / "config.yml").write_text(json.dumps(config))
        program = shutil.which("docker-registry")
        assert program, "tests/run installs docker-registry"
        self._process = subprocess.Popen(
            [program, "serve", folder / "config.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port = int(self.host.rpartition(":")[2])
        for _ in range(500):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("docker-registry does not listen")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def push(self, source: str, name: str, *options: str) -> str:
        """Copy an image here with skopeo; the digest of what is there then."""
        credentials = ("--dest-creds", ":".join(self.credentials)) if self.credentials else ()
        target = f"docker://{self.host}/{name}"
        line = ["skopeo", "copy", "-q", "--dest-tls-verify=false", *credentials, *options, source, target]
        subprocess.run(line, check=True, capture_output=True)
        return self.digest(name)

    def digest(self, name: str) -> str:
        return f"sha256:{hashlib.sha256(self.raw(name)).hexdigest()}"

    def raw(self, name: str) -> bytes:
        """The manifest or index, verbatim."""
        credentials = ("--creds", ":".join(self.credentials)) if self.credentials else ()
        line = ["skopeo", "inspect", "--raw", "--tls-verify=false", *credentials, f"docker://{self.host}/{name}"]
        return subprocess.run(line, check=True, capture_output=True).stdout


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """Debian's registry, open to all."""
    registry = RealRegistry(tmp_path_factory.mktemp("real") / "registry")
    yield registry
    registry.close()


@pytest.fixture
def fresh_real(tmp_path: Path) -> Iterator[RealRegistry]:
    """One that nobody has pushed to: skopeo remembers what is where, and in which form it is there."""
    registry = RealRegistry(tmp_path / "registry")
    yield registry
    registry.close()


@pytest.fixture(scope="session")
def guarded_real(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[RealRegistry]:
    """Debian's registry with TLS, for those who know a password."""
    # The password is "s3cret".
    users = "somebody:$2b$04$LNCk/SkTA6Ofn46m6wvP5O6r3RMnZix/1gEx5NmsFqqLu/WpU4nS6\n"
    registry = RealRegistry(tmp_path_factory.mktemp("guarded") / "registry", certificate=certificate, users=users)
    registry.credentials = ("somebody", "s3cret")
    yield registry
    registry.close()


@pytest.fixture
def evil() -> Iterator[EvilRegistry]:
    registry = EvilRegistry()
    yield registry
    registry.close()


@pytest.fixture
def evil_tls(certificate: Path) -> Iterator[EvilRegistry]:
    registry = EvilRegistry(certificate)
    yield registry
    registry.close()


class Puller:
    """Pulls in this process, on a data root of its own; ``waits`` are the seconds that it would have slept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = DataRoot(str(path / "store"))
        self.waits: list[float] = []
        self.events: list[Event] = []
        self.config = path / "config.toml"
        self.config.write_text("")

    def configure(self, **values: Any) -> None:
        """Keys of the configuration file; tables are mappings of lists."""
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items() if not isinstance(value, dict)]
        for key, value in values.items():
            if isinstance(value, dict):
                lines += [f"[{key}]\n", *(f"{json.dumps(name)} = {json.dumps(item)}\n" for name, item in value.items())]
        self.config.write_text("".join(lines))

    @property
    def engine(self) -> Engine:
        os.environ["MINIDOCK_CONFIG"] = str(self.config)
        return Engine(root=self.root.path)

    def __call__(self, name: str, *, tries: int = 3, **options: Any) -> list[pulling.Pulled]:
        patience = Patience(tries=tries, sleep=self.waits.append, chance=lambda: 1.0)
        return pulling.pull(self.engine, name, tell=self.events.append, patience=patience, **options)

    def refuse(self, name: str, **options: Any) -> MinidockError:
        """A pull that must fail, and leave nothing that anybody sees: the error."""
        before = [image.id for image in self.images()]
        with pytest.raises(MinidockError) as caught:
            self(name, **options)
        error = caught.value
        assert "\n" not in str(error), str(error)
        assert len(str(error)) < 600, str(error)
        assert error.message.isprintable()
        assert [image.id for image in self.images()] == before
        assert all(not verdict.problems for verdict in self.engine.verify())
        assert os.listdir(self.root.tmp) == []
        return error

    def images(self) -> list[Any]:
        self.root.ensure()
        return list(Images(self.root).list())

    def partial(self) -> dict[str, int]:
        """What has come of layers that are not whole yet: digest and bytes."""
        folder = Path(self.root.cache) / "downloads"
        if not folder.is_dir():
            return {}
        return {f"sha256:{entry.name}": entry.stat().st_size for entry in folder.iterdir()}


@pytest.fixture
def puller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Puller]:
    monkeypatch.setenv("MINIDOCK_CONFIG", "/dev/null")
    # The certificates of the world's authorities take longer to read than all the rest of a pull.
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
    found = Puller(tmp_path)
    yield found
    unpin(found.root)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("shared")
    yield folder
    unpin(DataRoot(str(folder / "store")))


@pytest.fixture
def refuser(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Puller:
    """A puller whose pulls all fail, on a data root that is made once and emptied for each test."""
    monkeypatch.setenv("MINIDOCK_CONFIG", "/dev/null")
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
    found = Puller(shared_folder)
    assert found.images() == []
    for folder in (found.root.blobs, f"{found.root.cache}/downloads"):
        shutil.rmtree(folder, ignore_errors=True)
    Path(found.root.blobs).mkdir()
    return found


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Minidock]:
    """The command on an empty data root; ``configure`` of its puller writes its configuration."""
    found = Minidock(tmp_path / "store")
    found.environment["MINIDOCK_CONFIG"] = str(tmp_path / "config.toml")
    (tmp_path / "config.toml").write_text("")
    yield found
    found.close()


@pytest.fixture
def login(home: Path) -> Callable[..., None]:
    """Write docker's config.json; the keywords are its members."""

    def write(**members: Any) -> None:
        folder = home / ".docker"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(members))

    return write
