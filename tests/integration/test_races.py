"""Commands that cross each other, some of them killed: whatever comes of them, nothing is left and all goes on."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from minidock.store.layout import DataRoot

NAMES = ("aa", "bb")
TRAPPED = "trap 'exit 4' TERM; while :; do sleep 0.02; done"
COMMANDS = (("true",), ("sh", "-c", "exit 7"), ("sleep", "30"), ("sh", "-c", TRAPPED))


def verb(choice: random.Random) -> list[str]:
    """Any command on any of a few containers and volumes."""
    name = choice.choice(NAMES)
    options = [
        *choice.choice(([], ["--network", "none"])),
        *choice.choice(([], ["-v", "vol:/d"], ["-v", "/anonymous"])),
    ]
    command = choice.choice(COMMANDS)
    verbs: list[list[str]] = [
        ["run", "--rm", *options, "busybox", "true"],
        ["run", "-d", "--name", name, *options, "busybox", *command],
        ["run", "-d", "--rm", "--name", name, *options, "busybox", *command],
        ["create", "--name", name, *options, "busybox", *command],
        ["start", name],
        ["stop", "-t", "0", name],
        ["kill", name],
        ["rm", "-f", "-v", name],
        ["rm", name],
        ["exec", name, "sh", "-c", "sleep 0.1"],
        ["pause", name],
        ["unpause", name],
        ["ps", "-a"],
        ["logs", name],
        ["inspect", name],
        ["volume", "rm", "vol"],
        ["volume", "prune", "-f"],
    ]
    return choice.choice(verbs)


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def end(process: subprocess.Popen[bytes], command: list[str], *, killed: bool) -> None:
    _, stderr = process.communicate(timeout=60)
    assert b"Traceback" not in stderr, (command, stderr)
    if not killed:
        assert 0 <= process.returncode <= 137, (command, process.returncode, stderr)


def command_lines() -> Iterator[str]:
    """The command line of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def traces(root: Path) -> Iterator[str]:
    """What is left of containers and of anything half-made."""
    yield from (str(root / "tmp" / name) for name in os.listdir(root / "tmp"))
    yield from (f"container {name}" for name in os.listdir(root / "containers") if name != "by-name")
    yield from (f"name {name}" for name in os.listdir(root / "containers/by-name"))
    run = DataRoot(str(root)).run
    yield from (f"{run}/{name}" for name in os.listdir(run) if len(name) == 64)
    for lease in Path("/run/minidock/net/minidock0").glob("*"):
        with suppress(FileNotFoundError):
            if str(root) in lease.read_text():
                yield str(lease)
    for line in command_lines():
        if str(root) in line:
            yield line


def left(root: Path) -> list[str]:
    """The traces that stay: a monitor that has let go of everything may take some milliseconds more to end."""
    deadline = time.monotonic() + 2
    while (found := list(traces(root))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_any_commands_at_once(minidock: Any, seed: int) -> None:
    choice = random.Random(seed)
    for _ in range(10):
        commands = [verb(choice) for _ in range(4)]
        started = [minidock.popen(*command) for command in commands]
        killed = set()
        if choice.random() < 0.6:
            # One of them is killed: the command, its monitor, or both.
            time.sleep(choice.uniform(0, 0.15))
            victim = choice.randrange(len(started))
            pids = [[started[victim].pid], children(started[victim].pid)]
            for pid in [*pids[0], *pids[1]] if choice.random() < 0.3 else choice.choice(pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            killed.add(victim)
        for number, process in enumerate(started):
            end(process, commands[number], killed=number in killed)
    for container in minidock.out("ps", "-aq").split():
        minidock("rm", "-f", "-v", container)
    minidock("volume", "prune", "-f")
    assert left(minidock.root) == []
    assert minidock("run", "--rm", "--name", "aa", "-v", "vol:/d", "busybox", "true").stdout == ""


def test_of_two_runs_of_one_name_one_wins(minidock: Any) -> None:
    for _ in range(3):
        runs = [minidock.popen("run", "-d", "--name", "it", "busybox", "sleep", "30") for _ in range(3)]
        said = [run.communicate(timeout=30)[1] for run in runs]
        assert sorted(run.returncode for run in runs) == [0, 125, 125]
        assert sum(b"already in use" in text for text in said) == 2
        minidock("rm", "-f", "it")


def test_two_removals_and_starts_of_one(minidock: Any) -> None:
    for _ in range(4):
        minidock("create", "--name", "it", "--network", "none", "busybox", "sleep", "30")
        commands = [["start", "it"], ["rm", "-f", "it"], ["start", "it"], ["rm", "-f", "it"]]
        started = [minidock.popen(*command) for command in commands]
        for process, command in zip(started, commands, strict=True):
            _, stderr = process.communicate(timeout=30)
            assert process.returncode == 0 or b"no such container" in stderr, (command, stderr)
        minidock("rm", "-f", "it", status=None)
        assert left(minidock.root) == []


def test_a_volume_is_removed_or_used_but_never_both(minidock: Any) -> None:
    for _ in range(6):
        minidock("volume", "create", "vol")
        run = minidock.popen("run", "--rm", "--network", "none", "-v", "vol:/d", "busybox", "touch", "/d/file")
        removal = minidock.popen("volume", "rm", "vol")
        assert (run.communicate(timeout=30)[1], run.returncode) == (b"", 0)
        _, said = removal.communicate(timeout=30)
        assert removal.returncode == 0 or b"in use" in said
        minidock("volume", "rm", "-f", "vol")


def test_many_at_once_have_an_address_each(minidock: Any) -> None:
    command = ["busybox", "sh", "-c", "ip -4 -o addr show eth0; sleep 60"]
    runs = [minidock.popen("run", "-d", "--name", f"many{number}", *command) for number in range(20)]
    assert [run.communicate(timeout=60) and run.returncode for run in runs] == [0] * 20
    addresses = set()
    for number in range(20):
        while not (text := minidock.out("logs", f"many{number}")):
            time.sleep(0.01)
        addresses.add(text.split()[3])
    assert len(addresses) == 20
    minidock("rm", "-f", *minidock.out("ps", "-q").split())
    assert left(minidock.root) == []
