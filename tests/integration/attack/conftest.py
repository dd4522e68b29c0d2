"""What every attack has around it: a tree and a process of the host that must come out of it unchanged.

The sentinel and the canary are there in every test of this folder, asked for or not, and are compared after it. The
programs of ``src`` are compiled once a session, statically, so that they run in an image that holds nothing else.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).resolve().parent / "src"
RACE_SECONDS = 60.0
LONG_RACE_SECONDS = 300.0
# Host files that escapes of the past have written to; their content is compared, too.
_HOST_FILES = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/hosts", "/etc/hostname", "/bin/busybox")
_HOST_PARAMETERS = ("core_pattern", "hostname", "modprobe", "poweroff_cmd", "shm_rmid_forced")
_CANARY_FILES = ("cmdline", "environ", "oom_score_adj", "cgroup", "limits", "uid_map", "gid_map")
_CANARY_LINKS = (
    "exe",
    "cwd",
    "root",
    *(f"ns/{kind}" for kind in ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup")),
)
# Not what changes while a process sleeps: how often it was switched, and what its user's other processes queue.
_CANARY_STATUS = (
    *("State", "Uid", "Gid", "Groups", "TracerPid", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"),
    *("NoNewPrivs", "Seccomp", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
)


def describe(path: Path) -> dict[str, tuple[object, ...]]:
    """Everything that stat, the attributes and the content tell of a tree; not the access times, which reading it for
    this changes."""
    found: dict[str, tuple[object, ...]] = {}
    pending = [path]
    while pending:
        here = pending.pop()
        status = os.lstat(here)
        content: object = ""
        if stat.S_ISDIR(status.st_mode):
            pending.extend(Path(entry.path) for entry in os.scandir(here))
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(here.read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(here)
        names = sorted(os.listxattr(here, follow_symlinks=False))
        found[str(here)] = (
            *(status.st_mode, status.st_ino, status.st_nlink, status.st_uid, status.st_gid, status.st_rdev),
            *(status.st_size, status.st_mtime_ns, status.st_ctime_ns, content),
            *((name, os.getxattr(here, name, follow_symlinks=False)) for name in names),
        )
    return found


class Sentinel:
    """A tree of the host: ``path``, with the file ``path/"secret"`` of content ``secret`` among others."""

    secret = "the sentinel's secret\n"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = self._look()

    @classmethod
    def make(cls, path: Path) -> Sentinel:
        for name, mode in (
            ("", 0o755),
            ("private", 0o700),
            ("sticky", 0o1777),
            ("empty", 0o755),
            ("private/deep", 0o755),
        ):
            (path / name).mkdir()
            (path / name).chmod(mode)
        (path / "secret").write_text(cls.secret)
        (path / "secret").chmod(0o600)
        (path / "private/deep/program").write_bytes(bytes(range(256)) * 64)
        (path / "private/deep/program").chmod(0o4755)
        (path / "owned").write_text("somebody else's\n")
        os.chown(path / "owned", 12345, 54321)
        os.setxattr(path / "owned", "user.sentinel", b"value")
        os.setxattr(path / "sticky", "trusted.sentinel", b"value")
        (path / "link").symlink_to("secret")
        (path / "dangling").symlink_to("not-there")
        os.link(path / "owned", path / "hard-link")
        os.mkfifo(path / "fifo")
        return cls(path)

    def changes(self) -> list[str]:
        """The paths that were added, removed or changed, and parameters of the host, each with what it was and is."""
        before, after = self._before, self._look()
        names = sorted(before.keys() | after.keys())
        return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in names if before.get(key) != after.get(key)]

    def _look(self) -> dict[str, object]:
        seen: dict[str, object] = dict(describe(self.path))
        for name in _HOST_FILES:
            status = os.stat(name)
            digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()
            seen[name] = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_ino, digest)
        for name in _HOST_PARAMETERS:
            file = Path("/proc/sys/kernel", name)
            seen[str(file)] = file.read_text() if file.exists() else ""
        seen["/"] = sorted(os.listdir("/"))
        # Loop and mapped devices come and go with what else the host does.
        seen["/dev"] = sorted(name for name in os.listdir("/dev") if not name.startswith(("loop", "dm-")))
        return seen


class Canary:
    """A sleeping process of the host, and what can be told of it from outside."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        Path(f"/proc/{self.pid}/oom_score_adj").write_text("17")
        self._before = self._look()

    def changes(self) -> list[str]:
        """What is different; that it has died, if it has."""
        if self._process.poll() is not None:
            return [f"the canary ended with {self._process.returncode}"]
        after = self._look()
        return [f"{key}: {self._before[key]} -> {after[key]}" for key in after if self._before[key] != after[key]]

    def _look(self) -> dict[str, str]:
        proc = Path(f"/proc/{self.pid}")
        seen = {name: (proc / name).read_text() for name in _CANARY_FILES}
        seen |= {name: os.readlink(proc / name) for name in _CANARY_LINKS}
        fields = (line.partition(":") for line in (proc / "status").read_text().splitlines())
        return seen | {key: value for key, _, value in fields if key in _CANARY_STATUS}


@pytest.fixture(autouse=True)
def sentinel(tmp_path: Path) -> Iterator[Sentinel]:
    """The tree, at ``tmp_path/"sentinel"``; the test fails when it is not the same afterwards."""
    sentinel = Sentinel.make(tmp_path / "sentinel")
    yield sentinel
    assert sentinel.changes() == []


@pytest.fixture(autouse=True)
def canary() -> Iterator[Canary]:
    """The process; the test fails when it is not the same afterwards."""
    environment = {"CANARY": "sings", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sleep", "86400"], env=environment, start_new_session=True) as process:
        try:
            # The exec is over before the kernel has laid out the arguments, and then it still has to fall asleep.
            while "(sleep) S" not in Path(f"/proc/{process.pid}/stat").read_text():
                os.sched_yield()
            canary = Canary(process)
            yield canary
            assert canary.changes() == []
        finally:
            process.kill()


@pytest.fixture(scope="session")
def build_static(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile a program of ``src`` (its path, or its name without ``.c``) statically, once a session for each set of
    flags. A variant for another ABI (``-m32``, ``-mx32``; with ``-nostdlib``, as its C library is rarely there) that
    the compiler or the linker cannot make skips the test."""
    folder = tmp_path_factory.mktemp("attack-programs")
    made: dict[tuple[str, ...], Path] = {}

    def build(source: Path | str, *flags: str) -> Path:
        path = SOURCES / f"{source}.c" if isinstance(source, str) else source
        key = (str(path), *flags)
        if key not in made:
            program = folder / "".join((path.stem, *flags)).replace("/", "_")
            static = () if "-static-pie" in flags else ("-static",)
            command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", *static, *flags, "-o", str(program), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            if done.returncode and {"-m32", "-mx32"} & set(flags):
                pytest.skip(f"the compiler makes no {' '.join(flags)} program: {done.stderr.splitlines()[-1]}")
            assert done.returncode == 0, done.stderr
            made[key] = program
        return made[key]

    return build


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """How long a race runs; a test with several races divides it among them."""
    return LONG_RACE_SECONDS if request.config.getoption("--long-races") else RACE_SECONDS


@pytest.fixture
def make_image(minidock: Any, busybox_tree: Path, tmp_path: Path) -> Callable[..., None]:
    """Make an image of any shape: ``make_image(name, change, dockerfile)``.

    It is the busybox tree as ``change``, called with the tree's folder, leaves it; ``dockerfile`` are lines to build on
    top of that.
    """

    def make(name: str, change: Callable[[Path], object] | None = None, dockerfile: str = "") -> None:
        tree = tmp_path / f"tree-{name}"
        subprocess.run(["cp", "-a", busybox_tree, tree], check=True)
        tree.chmod(0o755)
        if change is not None:
            change(tree)
        tar = tmp_path / f"{name}.tar"
        subprocess.run(["tar", "--sparse", "--numeric-owner", "--xattrs", "-C", tree, "-cf", tar, "."], check=True)
        minidock("import", tar, f"{name}-base" if dockerfile else name)
        if dockerfile:
            folder = tmp_path / f"context-{name}"
            folder.mkdir()
            (folder / "Dockerfile").write_text(f"FROM {name}-base\n{dockerfile}\n")
            minidock.build(folder, "-t", name)

    return make
