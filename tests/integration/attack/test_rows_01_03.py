"""Rows 1 to 3 of SECURITY.md, section 2: the interpreter's file, and descriptors that lead to the host."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.attack.tools import install, until

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="the loader of these tests is written for x86_64"
)

LOADER = ("-nostdlib", "-static-pie", "-fno-stack-protector")
ALL_FDS = range(3, 65)
SOME_FDS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20, 63)


@pytest.fixture(autouse=True)
def interpreter() -> Iterator[Path]:
    """The program that the engine is executed by; unchanged after each test."""
    path = Path(os.path.realpath(sys.executable))
    before = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat()
    yield path
    after = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat()
    assert (after[0], after[1].st_mtime_ns, after[1].st_ctime_ns) == (
        before[0],
        before[1].st_mtime_ns,
        before[1].st_ctime_ns,
    )


def loaders(tree: Path, loader: Path) -> None:
    """Whatever loader a program of the host could ask for is the image's own."""
    for name in ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1", "lib/ld-musl-x86_64.so.1"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(loader.read_bytes())
        (tree / name).chmod(0o755)


@pytest.mark.parametrize("way", ["script", "script-with-argument", "entrypoint", "cwd-exe"])
def test_row_01_the_engines_program_is_not_executed_again(
    minidock: Any, make_image: Callable[..., None], build_static: Callable[..., Path], way: str
) -> None:
    """A script for /proc/self/exe, or that path itself as the command, in an image whose loader is the attacker's."""
    loader = build_static("loader", *LOADER)

    def change(tree: Path) -> None:
        loaders(tree, loader)
        for name, text in (("script", "#!/proc/self/exe\n"), ("script-with-argument", "#!/proc/self/exe -c 1\n")):
            (tree / name).write_text(text)
            (tree / name).chmod(0o755)

    make_image("evil", change)
    command = {"entrypoint": "/proc/self/exe", "cwd-exe": "/proc/1/exe"}.get(way, f"/{way}")
    done = minidock("run", "--rm", "--network", "none", "evil", command, status=126, timeout=20)
    assert "LOADED" not in done.stdout + done.stderr
    minidock("run", "-d", "--name", "it", "--network", "none", "evil", "sleep", "100")
    # There, /proc/1/exe is the image's own: it is no way to the engine's.
    command = command.replace("/proc/1/exe", "/proc/self/exe")
    done = minidock("exec", "it", command, status=126, timeout=20)
    assert "LOADED" not in done.stdout + done.stderr
    minidock("exec", "it", "test", "!", "-e", "/loaded")


def test_row_01_the_images_loader_would_have_been_seen(
    minidock: Any, make_image: Callable[..., None], build_static: Callable[..., Path], interpreter: Path
) -> None:
    """The trap of the test above works: a program of the image that asks for that loader gets it."""
    loader = build_static("loader", *LOADER)

    def change(tree: Path) -> None:
        loaders(tree, loader)
        (tree / "python").write_bytes(interpreter.read_bytes())
        (tree / "python").chmod(0o755)

    make_image("evil", change)
    assert minidock.out("run", "--rm", "--network", "none", "evil", "/python") == "LOADED /python"


@pytest.mark.race
def test_row_01_programs_of_joining_processes_cannot_be_written(
    minidock: Any,
    make_image: Callable[..., None],
    build_static: Callable[..., Path],
    interpreter: Path,
    seconds: float,
) -> None:
    """The container opens /proc/PID/exe of every process that appears, and later for writing, while ``exec`` runs."""
    probe = build_static("nsprobe")
    make_image("evil", lambda tree: install(tree, probe))
    status = interpreter.stat()
    ours = f"{status.st_dev}:{status.st_ino}"
    minidock("run", "-d", "--name", "it", "--network", "none", "evil", "/nsprobe", str(seconds))
    for _ in until(seconds - 1):
        minidock("exec", "it", "true", status=None)
    minidock("wait", "it")
    lines = [line.split() for line in minidock.out("logs", "it").splitlines()]
    assert int(next(line[3] for line in lines if line[0] == "rounds")) > 1000
    programs = {line[2] for line in lines if line[0] in ("exe", "writable")}
    assert programs, "the probe saw no program at all"
    assert ours not in programs
    assert [line for line in lines if line[0] == "writable" and not line[-1].startswith("/bin/")] == []


def leaked(count: int, path: Path) -> ExitStack:
    """``count`` inheritable descriptors of a directory of the host, closed at the end."""
    stack = ExitStack()
    for _ in range(count):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        os.set_inheritable(fd, True)
        stack.callback(os.close, fd)
    return stack


def inside(done: Any) -> bool:
    """Whether the probe ran, and then in a directory that lies inside the container."""
    cwds = [line for line in done.stdout.splitlines() if line.startswith("cwd ")]
    assert all(line.startswith("cwd /") for line in cwds), cwds
    return bool(cwds)


@pytest.fixture
def image(minidock: Any, make_image: Callable[..., None], build_static: Callable[..., Path]) -> str:
    """An image with the probe, and links to descriptors."""
    probe = build_static("fdprobe")

    def change(tree: Path) -> None:
        install(tree, probe)
        (tree / "setuid").write_bytes(probe.read_bytes())
        (tree / "setuid").chmod(0o4755)
        for fd in SOME_FDS:
            (tree / f"w{fd}").symlink_to(f"/proc/self/fd/{fd}")
        (tree / "cwd").symlink_to("/proc/self/cwd")
        (tree / "root-of-1").symlink_to("/proc/1/root")

    make_image("probes", change)
    return "probes"


class Inheriting:
    """The command, started with descriptors of the host's directories."""

    def __init__(self, minidock: Any) -> None:
        self.minidock = minidock

    def __call__(self, *arguments: str) -> Any:
        import subprocess

        fds = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2 and inheritable(int(name))]
        return subprocess.run(
            [self.minidock.command, *arguments],
            env=self.minidock.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=fds,
            timeout=60,
        )


def inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def test_row_02_the_working_directory_is_no_descriptor(minidock: Any, image: str, sentinel: Any) -> None:
    """``run -w`` and ``exec -w`` with every descriptor that could be one of the engine's or its caller's."""
    run = Inheriting(minidock)
    base = ("run", "--rm", "--network", "none")
    minidock("run", "-d", "--name", "it", "--network", "none", image, "sleep", "1000")
    with leaked(40, sentinel.path):
        for fd in ALL_FDS:
            join = [("exec", "-w", f"/proc/self/fd/{fd}", "it")] if fd in SOME_FDS else []
            for command in ((*base, "-w", f"/proc/self/fd/{fd}", image), *join):
                done = run(*command, "/fdprobe")
                assert not inside(done), command
                assert done.returncode == 125, (command, done.stderr)


@pytest.mark.parametrize(
    "path", ["/proc/1/fd/5", "/proc/1/root", "/proc/self/cwd", "/proc/thread-self/fd/7", "/proc/1/cwd"]
)
def test_row_02_nor_another_link_of_proc(minidock: Any, image: str, sentinel: Any, path: str) -> None:
    minidock("run", "-d", "--name", "it", "--network", "none", image, "sleep", "1000")
    with leaked(10, sentinel.path):
        for command in (("run", "--rm", "--network", "none", "-w", path, image), ("exec", "-w", path, "it")):
            done = Inheriting(minidock)(*command, "/fdprobe")
            assert done.returncode != 0
            assert not inside(done)


def test_row_02_nor_a_link_of_the_image_to_one(minidock: Any, image: str, sentinel: Any) -> None:
    run = Inheriting(minidock)
    minidock("run", "-d", "--name", "it", "--network", "none", image, "sleep", "1000")
    with leaked(20, sentinel.path):
        for name in (*(f"/w{fd}" for fd in SOME_FDS[::2]), "/cwd", "/root-of-1", "/w7/../../.."):
            for command in (("run", "--rm", "--network", "none", "-w", name, image), ("exec", "-w", name, "it")):
                done = run(*command, "/fdprobe")
                assert done.returncode in ((0, 125) if ".." in name else (125,)), (command, done.stderr)
                # A path with ".." is cleaned as text by ``run``, and then it is the root.
                assert not inside(done) or ".." in name


@pytest.mark.parametrize("path", ["/proc/self/fd/7", "/w7", "/proc/1/fd/8"])
def test_row_02_nor_a_workdir_of_the_image(minidock: Any, image: str, context: Any, sentinel: Any, path: str) -> None:
    folder = context(f"FROM {image}\nWORKDIR {path}\nRUN /fdprobe\n")
    with leaked(20, sentinel.path):
        done = Inheriting(minidock)("build", "-t", "bad", str(folder))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "cwd " not in done.stderr
    minidock("run", "--rm", "bad", "true", status=125)


@pytest.mark.parametrize("flags", [(), ("-i",), ("-u", "1000"), ("--init",), ("--cap-drop", "ALL")])
def test_row_03_only_the_three_descriptors(minidock: Any, image: str, sentinel: Any, flags: tuple[str, ...]) -> None:
    with leaked(50, sentinel.path):
        run = Inheriting(minidock)("run", "--rm", "--network", "none", *flags, image, "/fdprobe")
        setuid = Inheriting(minidock)("run", "--rm", "--network", "none", *flags, image, "/setuid")
    for done in (run, setuid):
        assert done.returncode == 0, done.stderr
        assert descriptors(done.stdout) == {0, 1, 2}
        assert "directory" not in done.stdout
    if "-u" in flags:
        assert "ids 1000 1000" in run.stdout
        assert "ids 1000 0" in setuid.stdout


def descriptors(text: str) -> set[int]:
    return {int(line.split()[1]) for line in text.splitlines() if line.startswith("fd ")}


def test_row_03_of_an_exec_and_a_detached_start_too(minidock: Any, image: str, sentinel: Any) -> None:
    run = Inheriting(minidock)
    script = "/fdprobe; sleep 1000"
    with leaked(50, sentinel.path):
        assert run("run", "-d", "--name", "it", "--network", "none", image, "sh", "-c", script).returncode == 0
        for flags in ((), ("-u", "1000"), ("--privileged",)):
            done = run("exec", *flags, "it", "/fdprobe")
            assert descriptors(done.stdout) == {0, 1, 2}, done.stderr
        assert descriptors(minidock.out("logs", "it")) == {0, 1, 2}
        assert run("create", "--name", "other", "--network", "none", image, "/fdprobe").returncode == 0
        assert descriptors(run("start", "-a", "other").stdout) == {0, 1, 2}


def test_row_03_of_a_build_step_too(minidock: Any, image: str, context: Any, sentinel: Any) -> None:
    folder = context(f"FROM {image}\nRUN /fdprobe >/out\n")
    with leaked(50, sentinel.path):
        done = Inheriting(minidock)("build", "-t", "built", str(folder))
    assert done.returncode == 0, done.stderr
    assert descriptors(minidock.out("run", "--rm", "--network", "none", "built", "cat", "/out")) == {0, 1, 2}
