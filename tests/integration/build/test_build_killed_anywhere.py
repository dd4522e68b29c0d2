"""A build of twelve steps in three stages, two of them side by side, that is killed or interrupted at random instants:
as a whole, its builder alone, or one of the processes below it. Nothing is left, and what was finished is used again.

``--long-races`` makes it a hundred kills. Every test prints its seed.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from minidock.store.layout import DataRoot
from tests.integration.pinned_layers import mounts_of

# The network of RUN is the bridge, unless it says otherwise.
DOCKERFILE = """FROM busybox AS left
ENV MARK={mark}
WORKDIR /left/{number}
COPY one .
RUN cat one > two; sleep 0.03
RUN --network=none --mount=type=cache,id=shared,target=/cache echo {number} >> /cache/log; tail -1 /cache/log > three
FROM busybox AS right
ENV MARK={mark}
WORKDIR /right/{number}
COPY two .
RUN --network=none seq 1 20000 > big; sleep 0.03
RUN --mount=type=cache,id=own,sharing=locked,target=/cache echo {number} > /cache/last; cat /cache/last > four
FROM busybox
ENV MARK={mark}
COPY --from=left /left/{number} /left
COPY --from=right /right/{number} /right
RUN cat /left/* > /all; md5sum < /right/big >> /all; cat /right/four >> /all
COPY one /one
"""
STEPS = 12
PATIENCE = 10.0
KINDS = {"a stage", "a keeper", "a command"}


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    return 100 if request.config.getoption("--long-races") else 10


@pytest.fixture
def rnd() -> random.Random:
    seed = int(os.environ.get("MINIDOCK_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"seed {seed}: MINIDOCK_SEED={seed} does the same again")
    return random.Random(seed)


class Site:
    """The build, which is another one in each round: nothing of it is in the cache."""

    def __init__(self, minidock: Any, folder: Path, mark: str) -> None:
        self.minidock = minidock
        self.mark = mark
        self.archive = folder.parent / "out.tar"
        self._folder = folder
        self._number = 0
        self.root = DataRoot(str(minidock.root))

    def next(self) -> None:
        self._number += 1
        (self._folder / "Dockerfile").write_text(DOCKERFILE.format(number=self._number, mark=self.mark))
        (self._folder / "one").write_text(f"one of {self._number}\n")
        (self._folder / "two").write_text(f"two of {self._number}\n")
        self.archive.unlink(missing_ok=True)

    @property
    def command(self) -> list[str]:
        return ["build", "--jobs", "2", "-t", "app", "-o", f"type=tar,dest={self.archive}", str(self._folder)]

    def start(self) -> subprocess.Popen[bytes]:
        """Begin the build in a process group of its own, as a shell has it."""
        started: subprocess.Popen[bytes] = self.minidock.popen(
            *self.command, stdout=subprocess.DEVNULL, start_new_session=True
        )
        return started

    def finish(self) -> str:
        """Do the whole build and look at what it made; what it told."""
        told = str(self.minidock(*self.command).stderr)
        with tarfile.open(self.archive) as tar:
            file = tar.extractfile("all")
            assert file is not None
            lines = file.read().decode().splitlines()
        number = str(self._number)
        assert lines[:3] == [f"one of {number}", number, f"one of {number}"]
        assert lines[3].endswith("  -")
        assert lines[4:] == [number]
        return told

    def duration(self) -> float:
        """How long a whole one takes here and now."""
        self.next()
        begun = time.monotonic()
        self.finish()
        return time.monotonic() - begun

    def processes(self) -> Iterator[int]:
        """Those of the engine that began with the command's environment, and those of RUN."""
        marks = f"MINIDOCK_ROOT={self.minidock.root}\0".encode(), f"MARK={self.mark}\0".encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                if any(mark in environment for mark in marks):
                    yield int(pid)

    def records(self) -> dict[str, bytes]:
        folder = self.minidock.root / "cache/build"
        return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def site(minidock: Any, context: Callable[..., Path]) -> Site:
    return Site(minidock, context(""), f"kill-{os.urandom(8).hex()}")


def networks(pids: Iterator[int]) -> set[str]:
    """The network namespaces of processes, the host's not among them."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
    return found - {os.readlink("/proc/self/ns/net")}


def everybody() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def wait_for(what: Callable[[], object], message: str) -> None:
    """Until ``what`` gives nothing any more."""
    end = time.monotonic() + PATIENCE
    while found := what():
        assert time.monotonic() < end, f"{message}: {found}"
        time.sleep(0.01)


def cgroups_of(pids: set[int]) -> list[str]:
    """Cgroups of the steps of builders that had these numbers."""
    wanted = tuple(f"step-{pid}-" for pid in pids)
    found = []
    for parent in (*Path("/sys/fs/cgroup").glob("*/minidock"), Path("/sys/fs/cgroup/minidock")):
        with suppress(FileNotFoundError):
            found += [f"{parent}/{name}" for name in os.listdir(parent) if name.startswith(wanted)]
    return found


def held_leases(site: Site) -> list[str]:
    """Addresses that the data root's builds have still."""
    found = []
    for path in Path("/run/minidock/net/minidock0").glob("*"):
        with suppress(OSError, ValueError):
            lease = json.loads(path.read_text())
            if lease["root"] == str(site.minidock.root) and is_held(Path(lease["lock"])):
                found.append(path.name)
    return found


def locks_held(site: Site) -> list[str]:
    """Claims on steps, locks of the data root and of cache mounts, and staging folders that somebody holds."""
    places = [
        *Path(site.root.run).glob("steps/*"),
        *Path(site.root.run).glob("*.lock"),
        *(site.minidock.root / "locks").iterdir(),
        *(site.minidock.root / "cache/mounts").glob("*"),
        *(site.minidock.root / "cache/mounts").glob("*/data*"),
        *(site.minidock.root / "tmp").iterdir(),
    ]
    return [str(path) for path in places if is_held(path)]


def is_held(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def check_dead(site: Site, spaces: set[str]) -> None:
    """Before any other command: whoever belonged to the build is dead, and holds nothing."""
    wait_for(lambda: list(site.processes()), "processes of the build are left")
    wait_for(lambda: spaces & networks(everybody()), "network namespaces are left")
    # Who dies lets go of its memory, in which it is found, before its files.
    wait_for(lambda: locks_held(site), "locks are left")
    wait_for(lambda: held_leases(site), "leases are left")
    assert len(mounts_of(site.minidock)) <= 2, "the pin of the layers, and nothing of the build"
    assert not any(space.strip("net:[]") in line for line in host_mounts() for space in spaces)


def host_mounts() -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " nsfs " in line]


def check_clean(site: Site, pids: set[int]) -> None:
    """After the next build: nothing of it or of the killed one."""
    assert os.listdir(site.minidock.root / "tmp") == []
    assert os.listdir(f"{site.root.run}/steps") == []
    assert cgroups_of(pids) == []
    assert len(mounts_of(site.minidock)) <= 2


def finished(told: str) -> list[str]:
    """The steps that a build had finished for good: each that is done, when a RUN of its stage after it is, or when
    another stage has taken something of its own."""
    titles = dict(re.findall(r"^#(\d+) (\[.*\d/\d\] .*)$", told, re.M))
    done = set(re.findall(r"^#(\d+) DONE", told, re.M))
    stages: dict[str, list[tuple[bool, str]]] = {}
    for number, title in sorted(titles.items(), key=lambda item: int(item[0])):
        stage = re.sub(r"^\[(.*?) ?\d/\d\].*", r"\1", title)
        stages.setdefault(stage, []).append((number in done, title))
    found = []
    for stage, steps in stages.items():
        taken = any(f"COPY --from={stage} " in title for title in titles.values())
        runs = [place for place, (is_done, title) in enumerate(steps) if is_done and "] RUN " in title]
        last = len(steps) if taken else max(runs, default=0)
        found += [title for is_done, title in steps[:last] if is_done]
    return found


def cached(told: str) -> set[str]:
    titles = dict(re.findall(r"^#(\d+) (\[.*\d/\d\] .*)$", told, re.M))
    return {titles[number] for number in re.findall(r"^#(\d+) CACHED", told, re.M) if number in titles}


def check_next(site: Site, told: str, pids: set[int]) -> None:
    """The next build succeeds, with all that was recorded and all that was finished, and leaves nothing."""
    before = site.records()
    again = site.finish()
    after = site.records()
    assert {name: after.get(name) for name in before} == before, "what was recorded is not made again"
    assert set(finished(told)) <= cached(again), f"{told}\n{again}"
    check_clean(site, pids)


def test_killed_at_any_instant(site: Site, rounds: int, rnd: random.Random) -> None:
    """The builder alone, whose death ends all the others, or all at once."""
    assert sum("] FROM" not in title for title in titles_of(site)) == STEPS
    whole = sorted(site.duration() for _ in range(3))[1]
    reused, seen, killed = [], set(), 0
    for number in range(5 * rounds):
        site.next()
        build = site.start()
        instant = whole * rnd.random()
        time.sleep(instant)
        pids = {build.pid, *site.processes()}
        spaces = networks(iter(pids))
        build.kill()
        if number % 2:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        told = build.communicate(timeout=PATIENCE)[1].decode()
        if build.returncode != -signal.SIGKILL:
            whole *= 0.95
            continue
        killed += 1
        check_dead(site, spaces)
        assert not site.archive.exists(), "a destination is whole, or not there"
        check_next(site, told, pids)
        reused.append(len(finished(told)))
        seen.add(told.count("\n"))
        if killed == rounds:
            break
    print(f"steps that were used again: {sorted(reused)}")
    assert killed == rounds, "most builds ended before the instant"
    assert max(reused) >= 3, "no build came far enough to leave anything"
    assert len(seen) > 3, "every build was killed at the same point"


def titles_of(site: Site) -> list[str]:
    site.next()
    return re.findall(r"^#\d+ (\[.*\d/\d\] .*)$", site.finish(), re.M)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end_at_any_instant(site: Site, rounds: int, rnd: random.Random, number: signal.Signals) -> None:
    """All its processes get the keyboard's signal, the builder alone the others: nothing is left, without any other
    command."""
    whole = site.duration()
    ended = 0
    for _ in range(5 * rounds):
        site.next()
        build = site.start()
        assert build.stderr is not None
        # Before its first word the interpreter starts, which can only die of a signal.
        told = os.read(build.stderr.fileno(), 1)
        time.sleep(whole * rnd.random())
        pids = {build.pid, *site.processes()}
        spaces = networks(iter(pids))
        if number == signal.SIGINT:
            os.killpg(build.pid, number)
        else:
            build.send_signal(number)
        told += build.communicate(timeout=3 * PATIENCE)[1]
        assert b"Traceback" not in told
        check_dead(site, spaces)
        assert os.listdir(site.minidock.root / "tmp") == []
        assert os.listdir(f"{site.root.run}/steps") == []
        assert cgroups_of(pids) == []
        if build.returncode == 0:
            whole *= 0.9
            continue
        assert build.returncode == 128 + number, told.decode()
        assert list(site.archive.parent.glob(".*.tmp")) == []
        ended += 1
        if ended == max(rounds // 3, 3):
            break
    assert ended >= 3, "most builds ended before the instant"
    check_next(site, told.decode(), set())


def test_a_part_is_killed_at_any_instant(site: Site, rounds: int, rnd: random.Random) -> None:
    """The process of a stage, what keeps its commands, or a command itself: the build fails and says so, and takes the
    rest down; what the killed one had half-made goes with the next command."""
    whole = site.duration()
    victims: set[str] = set()
    done = 0
    for _ in range(5 * rounds):
        site.next()
        build = site.start()
        time.sleep(whole * (0.2 + 0.8 * rnd.random()))
        pids = {build.pid, *site.processes()}
        spaces = networks(iter(pids))
        others = sorted(pids - {build.pid})
        if not others or build.poll() is not None:
            build.communicate(timeout=PATIENCE)
            continue
        kinds = {pid: kind_of(pid) for pid in others}
        kind = rnd.choice(sorted(set(kinds.values()) - victims) or sorted(set(kinds.values())))
        victim = rnd.choice([pid for pid in others if kinds[pid] == kind])
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        told = build.communicate(timeout=3 * PATIENCE)[1].decode()
        print(f"{kind}: {build.returncode}")
        assert build.returncode in (0, 1), told
        assert "Traceback" not in told
        if build.returncode:
            reason = "(killed from outside|cannot start the container|exit code: 137)"
            assert re.search(f"^minidock: .*{reason}", told, re.M), told
            victims.add(kind)
        check_dead(site, spaces)
        check_next(site, told, pids)
        done += 1
        if victims == KINDS and done >= rounds // 2:
            break
    assert victims == KINDS


def kind_of(pid: int) -> str:
    """What a process of a build is: commands run in a pid namespace below the keeper's."""
    try:
        return {0: "a stage", 1: "a keeper"}.get(levels_of(pid) - levels_of(os.getpid()), "a command")
    except OSError:
        return "a stage"


def levels_of(pid: int) -> int:
    """How many pid namespaces a process is in."""
    return len(Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].partition("\n")[0].split())
