"""What several attacks need: programs in an image, processes beside it, the engine with a wall taken down."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minidock.engine.engine import Engine
from minidock.kernel import process


def install(tree: Path, *programs: Path) -> None:
    """Put programs into an image's tree at the root, each under its own name."""
    for program in programs:
        shutil.copy(program, tree / program.name)


@contextmanager
def background(*command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the host that runs as long as the context; it must not have ended by itself."""
    with subprocess.Popen([str(word) for word in command]) as started:
        try:
            yield started
            assert started.poll() is None, f"{command[0]} ended with {started.returncode}"
        finally:
            started.kill()


def until(seconds: float) -> Iterator[int]:
    """Counts, beginning with 0, as long as the time lasts; once at least. How often it was is told (pytest -rP)."""
    end = time.monotonic() + seconds
    number = 0
    while number == 0 or time.monotonic() < end:
        yield number
        number += 1
    print(f"{number} rounds in {seconds:g} s")


def apart(use: Callable[[], object], patch: Callable[[], object] = lambda: None, *, seconds: float = 60) -> str:
    """What comes of ``use``, as text, in a child in which ``patch`` has taken a defence down.

    What it raises is told as "ErrorClass: message", and "killed" that it took more than ``seconds``.
    """
    out, into = os.pipe()

    def child() -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            patch()
            answer = str(use())
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(into, os.fsencode(answer)[:60000])

    with process.spawn(child) as born:
        os.close(into)
        with open(out, errors="surrogateescape") as file:
            answer = file.read()
        return answer if born.wait() == 0 else "killed"


def engine_apart(root: Path, use: Callable[[Engine], object], patch: Callable[[], object] = lambda: None) -> str:
    """What ``use`` makes of an engine, as ``apart`` tells it."""

    def patched() -> None:
        os.environ["MINIDOCK_CONFIG"] = "/dev/null"
        patch()

    return apart(lambda: use(Engine(str(root), may_fork=True)), patched)


def output(image: str, *command: str, **options: Any) -> Callable[[Any], str]:
    """What a container of the image prints."""
    return lambda engine: engine.run(image, *command, network="none", auto_remove=True, **options).stdout.decode()


class Standing:
    """A module with some of its names replaced, for a patch of what one other module sees of it."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def naive_open(root: int, path: str, flags: int = os.O_PATH, *_: object, follow: bool = True, **__: object) -> int:
    """What ``open_in_root`` and ``open_beneath`` are there to avoid: links lead where they say, and so does ".."."""
    extra = 0 if follow else os.O_NOFOLLOW
    return os.open(f"/proc/self/fd/{root}/{path}", flags | extra | os.O_CLOEXEC)


def reachable(path: Path) -> bool:
    """Whether the user nobody can connect to a socket of the host, from its directory: its path may be too long."""
    program = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: os.chdir(sys.argv[1]); socket.socket(socket.AF_UNIX).connect(sys.argv[2]); print('open')\n"
        "except OSError: pass\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program, path.parent, path.name], capture_output=True, text=True)
    return "open" in done.stdout
