"""Fixtures of the whole suite: the real command on a data root of its own, and base images made once.

Everything under tests/integration, tests/conformance and tests/differential needs root and the real kernel; tests/unit
does not.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.drivers.forms import probe
from minidock.drivers.registry import open_driver
from minidock.drivers.tarballs import Tars
from minidock.kernel.pinned import Pinned
from minidock.log import Log
from minidock.rootfs import Rootfs
from minidock.store.blobs import Blobs
from minidock.store.layout import DataRoot

HERE = Path(__file__).resolve().parent
COMMAND = Path(sys.executable).with_name("minidock")
NEEDS_ROOT = ("integration", "conformance", "differential")
CACHE = Path("/var/cache/minidock-tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vm", action="store_true", help="also run the tests in a virtual machine")
    parser.addoption("--long-races", action="store_true", help="run each race of the attack tests for five minutes")
    parser.addoption("--record-snapshot", action="store_true", help="write down the snapshot of docker's sandbox")
    parser.addoption("--with-docker", action="store_true", help="build the differential cases with docker, too")
    parser.addoption("--record-docker", action="store_true", help="write down what docker gives for them")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    root = os.geteuid() == 0
    for item in items:
        if not root and any(part in NEEDS_ROOT for part in item.path.parts):
            item.add_marker(pytest.mark.skip(reason="needs root: the test mounts, and makes namespaces and networks"))
        if item.get_closest_marker("vm") and not config.getoption("--vm"):
            item.add_marker(pytest.mark.skip(reason="boots a virtual machine, which takes minutes: tests/run --vm"))


class Minidock:
    """The installed command on one data root. Calls return the finished process with text streams."""

    command = str(COMMAND)

    def __init__(self, root: Path, *, layers: str = "auto") -> None:
        self.root = root
        config = root.with_name(f"{root.name}.toml")
        # Nothing listens there: no test asks the world for an image.
        config.write_text(f'layers = "{layers}"\ndefault_registry = "127.0.0.1:1"\n')
        self.environment = {**os.environ, "MINIDOCK_ROOT": str(root), "MINIDOCK_CONFIG": str(config)}

    def __call__(
        self,
        *arguments: str | Path,
        status: int | None = 0,
        stdin: str | None = None,
        timeout: float = 60,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``minidock ARGUMENTS``; ``status`` is the expected exit status, None for any."""
        done = subprocess.run(
            [self.command, *map(str, arguments)],
            env=self.environment,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            cwd=cwd,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if status is not None:
            assert done.returncode == status, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def popen(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start ``minidock ARGUMENTS`` and leave it running."""
        defaults: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        return subprocess.Popen([self.command, *map(str, arguments)], env=self.environment, **(defaults | options))

    def out(self, *arguments: str | Path, **options: Any) -> str:
        """Standard output of a successful call, without the last newline."""
        return self(*arguments, **options).stdout.rstrip("\n")

    def inspect(self, name: str) -> dict[str, Any]:
        """One object as ``inspect`` prints it."""
        found: list[dict[str, Any]] = json.loads(self("inspect", name).stdout)
        return found[0]

    def build(self, folder: Path, *arguments: str, status: int | None = 0, timeout: float = 300) -> str:
        """``minidock build ARGUMENTS FOLDER``; returns the progress that it printed."""
        return self("build", *arguments, folder, status=status, timeout=timeout).stderr

    def close(self) -> None:
        """Remove every container and forget the data root."""
        containers = self("ps", "-aq", status=None).stdout.split()
        if containers:
            self("rm", "-f", "-v", *containers, status=None)
        unpin(DataRoot(str(self.root)))
        shutil.rmtree(self.root, ignore_errors=True)


def unpin(root: DataRoot) -> None:
    """Let go of the layers that are mounted for a data root."""
    if os.path.isdir(root.run):
        pinned = Pinned(f"{root.run}/layers")
        with pinned.lock():
            pinned.unpin()


def descriptors() -> dict[str, str]:
    """What each open descriptor of the tests' process is."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """The package runs in the tests' own process, too: whatever it or a test forgets to close is found here."""
    before = descriptors()
    yield
    if len(descriptors()) > len(before):
        gc.collect()
    after = descriptors()
    assert len(after) <= len(before), {number: what for number, what in after.items() if before.get(number) != what}


@pytest.fixture(scope="session")
def minidock_at() -> type[Minidock]:
    """The class itself, for tests that need the command on a data root of another life time."""
    return Minidock


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root that holds the busybox image and nothing else, to be copied."""
    root = tmp_path_factory.mktemp("template") / "root"
    minidock = Minidock(root)
    minidock("image", "bootstrap", "busybox")
    minidock("run", "--rm", "--network", "none", "busybox", "true")
    yield root
    minidock.close()


@pytest.fixture(scope="session")
def mounts_tarballs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Why this kernel cannot mount layers from their tarballs, "" if it can."""
    return probe(str(tmp_path_factory.mktemp("probe")))


@pytest.fixture
def layers() -> str:
    """The form of layers that the command uses; a module that tests both forms overrides it with parameters."""
    return "auto"


@pytest.fixture
def minidock(busybox_root: Path, tmp_path: Path, layers: str, mounts_tarballs: str) -> Iterator[Minidock]:
    """The command on a data root of the test's own that holds the busybox image."""
    if layers == "tarball" and mounts_tarballs:
        pytest.skip(f"layers cannot be mounted from their tarballs: {mounts_tarballs}")
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", busybox_root, root], check=True)
    command = Minidock(root, layers=layers)
    yield command
    command.close()


STORAGES = ("overlay2", "overlay2-tarball", "vfs")


@pytest.fixture
def open_storage(mounts_tarballs: str) -> Iterator[Callable[[DataRoot, str], Rootfs]]:
    """Open the root file systems of a data root with one of STORAGES; what is mounted for them goes with the test."""
    roots = []

    def open_rootfs(root: DataRoot, storage: str, log: Log | None = None) -> Rootfs:
        name, _, form = storage.partition("-")
        if form and mounts_tarballs:
            pytest.skip(f"layers cannot be mounted from their tarballs: {mounts_tarballs}")
        roots.append(root)
        tars = Tars(root.blobs, root.run, form or "tree")
        driver = open_driver(name, root.layers, root.tmp, tars=tars)
        return Rootfs(root, driver, Blobs(root), log or Log())

    yield open_rootfs
    for root in roots:
        unpin(root)


@pytest.fixture
def empty_minidock(tmp_path: Path) -> Iterator[Minidock]:
    """The command on a data root that does not exist yet."""
    command = Minidock(tmp_path / "root")
    yield command
    command.close()


@pytest.fixture(scope="session")
def busybox_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with a static busybox, its applets, and the users root and bob (1000, also in wheel)."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("bin", "etc", "proc", "sys", "dev", "root", "tmp"):
        (tree / name).mkdir()
    (tree / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    applets = subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (tree / "bin" / applet).hardlink_to(tree / "bin/busybox")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\nwheel:x:10:bob\nbob:x:1000:\n")
    return tree


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Path]:
    """Make a build context: ``context(dockerfile, {"path": "content"})`` gives its folder."""
    count = 0

    def make(dockerfile: str, files: dict[str, str | bytes] | None = None) -> Path:
        nonlocal count
        count += 1
        folder = tmp_path / f"context{count}"
        folder.mkdir()
        (folder / "Dockerfile").write_text(dockerfile)
        for name, content in (files or {}).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return make


@pytest.fixture(scope="session")
def debian_tar() -> Path:
    """A minimal Debian as a tarball, made once a machine by mmdebstrap from its own apt sources."""
    CACHE.mkdir(parents=True, exist_ok=True)
    tar = CACHE / "debian.tar"
    if not tar.exists():
        part = CACHE / "debian.part.tar"
        release = dict(line.partition("=")[::2] for line in Path("/etc/os-release").read_text().splitlines())
        suite = release["VERSION_CODENAME"].strip('"')
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", suite, part], check=True, timeout=600)
        part.rename(tar)
    return tar
