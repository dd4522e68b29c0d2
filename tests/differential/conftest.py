"""Both builders on one base image, and a web server for ADD."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.differential.builders import (
    DockerBuilder,
    MinidockBuilder,
    docker_daemon,
    docker_is_missing,
    wait_for,
)
from tests.differential.cases import REPOSITORY, SERVED, Case, read_cases, tar_of
from tests.differential.recording import DOCKER
from tests.integration.build.remote.servers import Repository, Server

# What the base image has below /srv for the cases: path, type, mode, owner, and content or target.
_BELOW_SRV = (
    ("srv", tarfile.DIRTYPE, 0o755, (0, 0), ""),
    ("srv/dir", tarfile.DIRTYPE, 0o750, (7, 8), ""),
    ("srv/dir/old", tarfile.REGTYPE, 0o640, (7, 8), "old\n"),
    ("srv/file", tarfile.REGTYPE, 0o644, (0, 0), "base file\n"),
    ("srv/abs", tarfile.SYMTYPE, 0o777, (0, 0), "/srv/dir"),
    ("srv/rel", tarfile.SYMTYPE, 0o777, (0, 0), "dir"),
    ("srv/up", tarfile.SYMTYPE, 0o777, (0, 0), "../../../../tmp"),
    ("srv/filelink", tarfile.SYMTYPE, 0o777, (0, 0), "file"),
    ("srv/dangling", tarfile.SYMTYPE, 0o777, (0, 0), "/nowhere"),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``case`` is every case, ``recorded_case`` each that docker can build, ``live_case`` those where it is asked."""
    cases = read_cases()
    recorded = [case for case in cases if not case.cites]
    if "live_case" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--with-docker") or metafunc.config.getoption("--record-docker")
        skipped = pytest.param(None, marks=pytest.mark.skip(reason="docker is asked with --with-docker only"), id="all")
        _parametrize(metafunc, "live_case", recorded) if asked else metafunc.parametrize("live_case", [skipped])
    if "recorded_case" in metafunc.fixturenames:
        _parametrize(metafunc, "recorded_case", recorded)
    if "cited_case" in metafunc.fixturenames:
        _parametrize(metafunc, "cited_case", [case for case in cases if case.cites])


def _parametrize(metafunc: pytest.Metafunc, name: str, cases: list[Case]) -> None:
    metafunc.parametrize(name, cases, ids=[case.name for case in cases])


@pytest.fixture(scope="session")
def base_tar(busybox_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root file system that cases stand on."""
    path = tmp_path_factory.mktemp("differential-base") / "base.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(busybox_tree, arcname=".", filter=_timeless)
        for name, kind, mode, (uid, gid), text in _BELOW_SRV:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid, member.mtime = kind, mode, uid, gid, 1_000_000_000
            if kind == tarfile.SYMTYPE:
                member.linkname = text
            else:
                member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def _timeless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = 1_000_000_000
    # A temporary directory's mode is no root directory's.
    member.mode |= 0o755 if member.isdir() else 0
    return member


@pytest.fixture(scope="session")
def web_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that has what the cases ask for."""
    folder = tmp_path_factory.mktemp("differential-server") / "repositories"
    repository = Repository(folder, REPOSITORY)
    (repository.work / "script").write_text("#!/bin/sh\n")
    (repository.work / "script").chmod(0o755)
    repository.commit(Dockerfile="FROM scratch\nCOPY . /all\n", sub__g="below\n")
    repository.git("tag", "v1")
    repository.git("push", "--quiet", "origin", "v1")
    repository.commit(later="not in v1\n")
    server = Server(folder, None)
    for path, content in SERVED.items():
        server.file(path, content if isinstance(content, bytes) else tar_of(content))
    yield server.url
    server.close()


def _asked_for(request: pytest.FixtureRequest, *parameters: str) -> list[Case]:
    """The cases of the tests of this session that have them as one of the parameters."""
    found = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    return [values[name] for values in found for name in parameters if name in values]


@pytest.fixture(scope="session")
def mine(
    base_tar: Path,
    web_server: str,
    minidock_at: Any,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[MinidockBuilder]:
    """Minidock on a data root with the base image. All cases that are asked for are built first, side by side."""
    folder = tmp_path_factory.mktemp("differential")
    minidock = minidock_at(folder / "root")
    builder = MinidockBuilder(folder / "contexts", web_server, minidock)
    builder.start(base_tar)
    builder.build_all(_asked_for(request, "recorded_case", "cited_case"))
    yield builder
    minidock.close()


@pytest.fixture(scope="session")
def docker(base_tar: Path, web_server: str, request: pytest.FixtureRequest) -> Iterator[DockerBuilder]:
    """Docker, where it is installed in the version that was recorded, with the base image; cases as for ``mine``."""
    missing = docker_is_missing()
    if missing:
        pytest.skip(f"docker is not installed: there is no {missing}")
    # The path of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="minidock-", dir="/var/tmp"))
    try:
        with docker_daemon(folder):
            builder = DockerBuilder(folder, web_server)
            version = wait_for(builder, folder)
            if version != DOCKER:
                pytest.skip(f"docker is {version} here, and {DOCKER} was recorded")
            builder.start(base_tar)
            builder.build_all(_asked_for(request, "live_case"))
            yield builder
    finally:
        shutil.rmtree(folder)
