"""The two builders of a case: minidock's command, and docker with BuildKit in a daemon of its own."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

from tests.differential.cases import Case, placed, tar_of, unplaced, write_context
from tests.differential.facts import Result, failure_facts, image_facts, message_of
from tests.differential.layers import Change, Tree, apply, read_layer, shown

BASE = "busybox"
DOCKER_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_CGROUPS = Path("/sys/fs/cgroup")
_SECONDS = 120
_BUILD = ("build", "--network", "none", "--progress", "plain")
# The daemon has mounts and processes of its own and no bridge, so that it touches neither the host's firewall nor its
# network; what it would change outside of namespaces, the limits of the kernel's keys, is read-only for it.
_DAEMON = """
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
[ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker
mount --bind /proc/sys/kernel/keys /proc/sys/kernel/keys
mount -o remount,bind,ro /proc/sys/kernel/keys
dockerd --host "unix://$1/socket" --data-root "$1/data" --exec-root /run/docker --pidfile /run/docker.pid \
    --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --cgroup-parent "/$2"
"""


class Done(NamedTuple):
    """A finished command."""

    returncode: int
    stdout: str
    stderr: str


def run(command: list[str], environment: dict[str, str], stdin: bytes) -> Done:
    """Run a command to its end."""
    done = subprocess.run(command, env=environment, input=stdin, capture_output=True, timeout=_SECONDS)
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


class Builder:
    """Builds cases and says what they came to. ``server`` is the address of the web server of the cases."""

    def __init__(self, folder: Path, server: str) -> None:
        self._folder = folder
        self._server = server
        self._layers: dict[str, list[Change]] = {}
        self._base_config: dict[str, Any] = {}
        self._base_tree: dict[str, str] = {}
        self._results: dict[str, Future[Result]] = {}
        # Cases give their bases the same names, so that only one with bases is built at a time.
        self._named = Lock()

    def start(self, base: Path) -> None:
        """Import the image that cases stand on from the tarball ``base``."""
        config, tree = self._read(self._import(base))
        self._base_config, self._base_tree = config, shown(tree)

    def result(self, case: Case) -> Result:
        """What the case came to; it is built once."""
        if case.name not in self._results:
            self.build_all([case])
        return self._results[case.name].result()

    def build_all(self, cases: Iterable[Case]) -> None:
        """Build several cases side by side, for ``result``."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self._results |= {case.name: pool.submit(self._build_case, case) for case in cases}

    def _build_case(self, case: Case) -> Result:
        context = self._folder / case.name
        write_context(case, context, self._server)
        iidfile = context.with_name(f"{context.name}.id")
        flags = [placed(flag, context, self._server) for flag in case.flags]
        with self._named if case.bases else nullcontext():
            for name, text in case.bases.items():
                base = context.with_name(f"{context.name}-{name}")
                write_context(case._replace(dockerfile=text), base, self._server)
                done = self._build(b"", "-t", name, str(base))
                assert done.returncode == 0, done.stderr
            given = case.stdin.encode() if isinstance(case.stdin, str) else tar_of(case.stdin)
            done = self._build(given, "--iidfile", str(iidfile), *flags, placed(case.context, context, self._server))
        if done.returncode:
            said = message_of(unplaced(done.stderr, context, self._server))
            return Result(failure_facts(said, case.dockerfile or ""), said)
        config, tree = self._read(iidfile.read_text().strip())
        facts = image_facts(config, shown(tree), self._base_config, self._base_tree)
        return Result({fact: unplaced(text, context, self._server) for fact, text in facts.items()})

    def _merged(self, layers: list[tuple[str, Callable[[], BinaryIO]]]) -> Tree:
        tree: Tree = {}
        for digest, opened in layers:
            if digest not in self._layers:
                with opened() as stream:
                    self._layers[digest] = read_layer(stream)
            apply(self._layers[digest], tree)
        return tree

    def _import(self, tar: Path) -> str:
        """Import a tarball under the name BASE; returns the image's ID."""
        raise NotImplementedError

    def _build(self, stdin: bytes, *arguments: str) -> Done:
        """Build without a network, with these arguments of build."""
        raise NotImplementedError

    def _read(self, image: str) -> tuple[dict[str, Any], Tree]:
        """An image's configuration and tree."""
        raise NotImplementedError


class MinidockBuilder(Builder):
    """Builds with ``minidock``, the tests' call of the command."""

    def __init__(self, folder: Path, server: str, minidock: Any) -> None:
        super().__init__(folder, server)
        self._minidock = minidock

    def _import(self, tar: Path) -> str:
        return str(self._minidock.out("import", tar, BASE))

    def _build(self, stdin: bytes, *arguments: str) -> Done:
        done = run([self._minidock.command, *_BUILD, *arguments], self._minidock.environment, stdin)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def _read(self, image: str) -> tuple[dict[str, Any], Tree]:
        blobs = self._minidock.root / "images/blobs/sha256"
        config = json.loads((blobs / image.removeprefix("sha256:")).read_bytes())
        paths = {digest: blobs / digest.removeprefix("sha256:") for digest in config["rootfs"]["diff_ids"]}
        return config, self._merged([(digest, partial(open, path, "rb")) for digest, path in paths.items()])


class DockerBuilder(Builder):
    """Builds with docker's command at the daemon of ``docker_daemon(folder)``."""

    def __init__(self, folder: Path, server: str) -> None:
        super().__init__(folder / "contexts", server)
        self._data = folder / "data"
        self._environment = {
            "PATH": DOCKER_PATH,
            "DOCKER_HOST": f"unix://{folder}/socket",
            "DOCKER_CONFIG": str(folder / "client"),
            "DOCKER_BUILDKIT": "1",
        }

    def version(self) -> str:
        """The daemon's version; empty while it does not answer."""
        done = self._docker("version", "--format", "{{.Server.Version}}")
        return done.stdout.strip() if done.returncode == 0 else ""

    def _docker(self, *arguments: str, stdin: bytes = b"") -> Done:
        return run(["docker", *arguments], self._environment, stdin)

    def _import(self, tar: Path) -> str:
        done = self._docker("import", str(tar), BASE)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _build(self, stdin: bytes, *arguments: str) -> Done:
        done = self._docker(*_BUILD, *arguments, stdin=stdin)
        # Version 20.10 panics at some Dockerfiles; such a case has to cite what a newer one does.
        assert self.version(), f"docker's daemon is gone: {done.stderr}"
        return done

    def _read(self, image: str) -> tuple[dict[str, Any], Tree]:
        # Docker does not save an image without layers, so that the configuration comes from where it keeps it.
        (path,) = self._data.glob(f"image/*/imagedb/content/sha256/{image.removeprefix('sha256:')}")
        config = json.loads(path.read_bytes())
        if not config["rootfs"].get("diff_ids"):
            return config, {}
        command = ["docker", "save", image]
        done = subprocess.run(command, env=self._environment, capture_output=True, timeout=_SECONDS, check=True)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            (manifest,) = json.load(_member(tar, "manifest.json"))
            names = zip(config["rootfs"]["diff_ids"], manifest["Layers"], strict=True)
            return config, self._merged([(digest, partial(_member, tar, name)) for digest, name in names])


def _member(tar: tarfile.TarFile, name: str) -> BinaryIO:
    stream = tar.extractfile(name)
    assert stream is not None
    return io.BytesIO(stream.read())


def docker_is_missing() -> str:
    """Which of docker's programs is not installed, or empty."""
    return next((name for name in ("dockerd", "docker") if not shutil.which(name, path=DOCKER_PATH)), "")


@contextmanager
def docker_daemon(folder: Path) -> Iterator[None]:
    """A daemon of our own with its data and socket in ``folder``, whose path is short. All of it ends with this."""
    group = f"minidock-differential-{os.getpid()}"
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*apart, "sh", "-c", _DAEMON, "daemon", folder, group],
            env={"PATH": DOCKER_PATH},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()
        for path in (_CGROUPS, *_CGROUPS.iterdir()):
            if (path / group).is_dir():
                _remove_groups(path / group)


def wait_for(docker: DockerBuilder, folder: Path) -> str:
    """The daemon's version once it answers; its log where it does not."""
    for _ in range(300):
        version = docker.version()
        if version:
            return version
        time.sleep(0.1)
    raise AssertionError((folder / "log").read_text())


def _remove_groups(group: Path) -> None:
    """Remove a tree of cgroups whose processes are about to end."""
    for folder, _, _ in os.walk(group, topdown=False):
        for _ in range(100):
            try:
                os.rmdir(folder)
                break
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                time.sleep(0.05)
