"""Servers on loopback for a test, and repositories below what they serve."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.build.remote.servers import Repository, Server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of 127.0.0.1 that signs itself, in one file."""
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.key").read_text())
    return path


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Server]:
    """A server of HTTP."""
    server = Server(tmp_path / "repositories", None)
    yield server
    server.close()


@pytest.fixture
def other_web(tmp_path: Path) -> Iterator[Server]:
    """Another host, as far as ports make one."""
    server = Server(tmp_path / "repositories", None)
    yield server
    server.close()


@pytest.fixture
def secure_web(tmp_path: Path, certificate: Path) -> Iterator[Server]:
    """A server of HTTPS, whose certificate nobody knows."""
    server = Server(tmp_path / "repositories", certificate)
    yield server
    server.close()


@pytest.fixture
def repository(tmp_path: Path) -> Callable[[str], Repository]:
    """Make a repository below what the servers serve."""
    return lambda name: Repository(tmp_path / "repositories", name)


@pytest.fixture
def clean(minidock: Any) -> Iterator[Any]:
    """The command, whose data root holds nothing half-made when the test ends."""
    yield minidock
    assert os.listdir(minidock.root / "tmp") == []
