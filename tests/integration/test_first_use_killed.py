"""SIGKILL at a hundred random instants of a layer's first use: no wrong tree, no leaked mount, no double mount.

The instants are spread over what the whole use takes on this machine; one at which it has ended already does not count.
By turns the command alone is killed, so that its container or step is left to itself, or every process that it has.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.pinned_layers import QUIET, blob_of, check_pin, check_whole, forget, inside, pin_of

DOCKERFILE = "FROM busybox\nCOPY file /d/\nRUN rm /etc/passwd && echo {} > /d/number\n"
TREE = (
    "find /bin /etc /d | sort | xargs stat -c '%A %u:%g %h %n'; cd /d; md5sum /bin/busybox /etc/group file; cat number"
)
# A use makes the next one a first one, with content of that number where it has any, and gives its command.
Use = Callable[[int], list[str | Path]]


@pytest.fixture
def layers() -> str:
    return "tarball"


@pytest.fixture
def build(minidock: Any, context: Callable[..., Path]) -> Use:
    """The base's index is made and mounted, and two layers on it: one composed, one of a container."""
    folder = context("", {"file": "here\n"})

    def prepare(number: int) -> list[str | Path]:
        forget(minidock)
        (folder / "Dockerfile").write_text(DOCKERFILE.format(number))
        return ["build", "-q", "--no-cache", "-t", "app", folder]

    return prepare


@pytest.fixture
def bring_in(minidock: Any, tmp_path: Path) -> Use:
    archive, content = tmp_path / "archive.tar", tmp_path / "content"

    def prepare(number: int) -> list[str | Path]:
        forget(minidock)
        shutil.copyfile(blob_of(minidock, "busybox"), archive)
        with tarfile.open(archive, "a") as tar:
            for name, text in (("d/file", "here"), ("d/number", str(number))):
                content.write_text(f"{text}\n")
                tar.add(content, name)
        return ["import", archive, "app"]

    return prepare


@pytest.fixture
def run(minidock: Any, build: Use) -> Use:
    def prepare(number: int) -> list[str | Path]:
        forget(minidock)
        return [*QUIET, "app", "sh", "-c", TREE]

    minidock(*build(0))
    return prepare


@pytest.fixture
def run_after_reboot(minidock: Any, run: Use) -> Use:
    def prepare(number: int) -> list[str | Path]:
        forget(minidock, indexes=False)
        return [*QUIET, "app", "sh", "-c", TREE]

    return prepare


def tree_after(minidock: Any, command: list[str | Path]) -> str:
    """Do the whole use; gives the tree that its image's containers see."""
    out = minidock.out(*command)
    return str(out if command[0] == "run" else minidock.out(*QUIET, "app", "sh", "-c", TREE))


def processes(minidock: Any) -> Iterator[int]:
    """Those that began with the command's environment, its monitors and steps among them."""
    mark = f"MINIDOCK_ROOT={minidock.root}\0".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                yield int(pid)


def kill_all(minidock: Any) -> None:
    while found := list(processes(minidock)):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def killed_within(minidock: Any, command: list[str | Path], instant: float, *, alone: bool) -> bool:
    """Kill the command so many seconds after its start; False when it had ended already."""
    process = minidock.popen(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(instant)
    process.kill()
    if not alone:
        kill_all(minidock)
    return bool(process.wait() == -signal.SIGKILL)


def no_container(minidock: Any, *, alone: bool) -> None:
    """The container of a killed monitor is taken away by the first command that looks at containers; one that was left
    to itself goes when its program has ended, or like the other, where its monitor was not born yet."""
    deadline = time.monotonic() + 10
    while minidock.out("ps", "-aq") and alone and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.listdir(minidock.root / "containers") == ["by-name"]
    assert os.listdir(minidock.root / "containers/by-name") == []


def left(minidock: Any) -> tuple[int, ...]:
    """How far a use came: how much it left of each kind."""
    places = ["layers/tarball", "tmp", "containers"]
    return (len(pin_of(minidock).names()), *(len(os.listdir(minidock.root / place)) for place in places))


def duration(minidock: Any, *command: str | Path) -> float:
    start = time.monotonic()
    minidock(*command)
    return time.monotonic() - start


@pytest.mark.parametrize(("use", "instants"), [("run", 35), ("run_after_reboot", 35), ("build", 15), ("bring_in", 15)])
def test_killed_at_any_instant_of_the_first_use(
    minidock: Any, request: pytest.FixtureRequest, use: str, instants: int
) -> None:
    prepare: Use = request.getfixturevalue(use)
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    rnd = random.Random(seed)
    # Until then the interpreter starts, and nothing has begun yet.
    first = min(duration(minidock, "version") for _ in range(3)) * 0.7
    whole = sorted(duration(minidock, *prepare(0)) for _ in range(3))[1]
    tree, number = tree_after(minidock, prepare(0)).rsplit("\n", 1)
    assert tree.count("/bin/") > 100
    assert number == "0"
    seen = set()
    killed = 0
    for count in range(1, 5 * instants):
        command = prepare(count)
        # One in each part of the use, in turn; then, on a machine that is busy with other things too, some more.
        part = (killed if killed < instants else rnd.randrange(instants)) + rnd.random()
        instant = first + max(whole - first, 0) * part / instants
        alone = count % 2 == 0
        if not killed_within(minidock, command, instant, alone=alone):
            whole *= 0.9
            no_container(minidock, alone=alone)
            continue
        killed += 1
        print(f"{instant:.4f} s of {whole:.4f}, {'alone' if alone else 'all'}: left {left(minidock)}")
        seen.add(left(minidock))
        check_whole(minidock, locks=not alone)
        assert tree_after(minidock, command) == f"{tree}\n{'0' if command[0] == 'run' else count}"
        no_container(minidock, alone=alone)
        check_pin(minidock)
        if killed >= instants and len(seen) > 2:
            break
    assert killed >= instants, "most uses ended before the instant"
    assert len(seen) > 2, "every use was killed at the same point"
    # What the build cache names would stay.
    shutil.rmtree(minidock.root / "cache/build", ignore_errors=True)
    minidock("rmi", "-f", *set(minidock.out("images", "-aq").split()))
    assert [os.listdir(minidock.root / place) for place in ("layers/tarball", "images/blobs/sha256")] == [[], []]
    assert inside(pin_of(minidock)) == ["/"]
