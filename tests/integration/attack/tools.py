"""What several attacks need: programs in an image, processes beside it, the engine with a wall taken down."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
    """Counts, beginning with 0, as long as the time lasts; once at least."""
    end = time.monotonic() + seconds
    number = 0
    while number == 0 or time.monotonic() < end:
        yield number
        number += 1


def engine_apart(root: Path, use: Callable[[Engine], object], patch: Callable[[], object] = lambda: None) -> str:
    """What ``use`` makes of an engine, as text, in a child in which ``patch`` has taken a defence down.

    What it raises is told as "ErrorClass: message".
    """
    out, into = os.pipe()

    def child() -> None:
        os.environ["MINIDOCK_CONFIG"] = "/dev/null"
        try:
            patch()
            answer = str(use(Engine(str(root), may_fork=True)))
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(into, os.fsencode(answer)[:60000])

    with process.spawn(child) as born:
        os.close(into)
        with open(out, errors="surrogateescape") as file:
            answer = file.read()
        born.wait()
    return answer
