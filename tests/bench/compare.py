#!/usr/bin/env python3
"""Compare minidock with docker and podman where they are installed: sudo .venv/bin/python tests/bench/compare.py.

Every case runs the tools in turn, A B C A B C ..., so that a machine whose speed drifts drifts for all; what is printed
are medians in milliseconds and the median of the pairwise ratios minidock / peer, beside the project's aims. A dockerd
is started by hand on a data root and socket of its own, and stopped at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from inputs import Contexts, busybox_tar, debian_tar, let_go, load, new_tar

FIVE_RUNS = "FROM busybox\n" + "".join(f"RUN echo {n} > /file{n}\n" for n in range(5))
COPY_FILES = "FROM busybox\nCOPY files /files\n"
COPY_BIG = "FROM busybox\nCOPY big /big\n"
BIG = 1_000_000_000
# podman asks for more than the hard limits of an unprivileged host allow.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


class Tool(NamedTuple):
    """A tool under test: how it is called, and the flags that its ``run`` and ``build`` need here."""

    name: str
    command: tuple[str, ...]
    run: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012 - never changed
    # The commands that give back the room of an image whose name is added to the first.
    forget: tuple[tuple[str, ...], ...] = (("rmi", "-f"),)

    def __call__(self, *arguments: str, check: bool = True) -> None:
        done = subprocess.run(
            [*self.command, *arguments],
            check=False,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if check and done.returncode:
            message = done.stderr.decode(errors="replace")
            raise RuntimeError(f"{self.name} {' '.join(arguments)}: exit {done.returncode}\n{message}")


class Case(NamedTuple):
    """One row: ``work`` is timed, ``before`` is not; ``aims`` are the ratios that the design asks for, by peer, and
    ``trees`` is the one that it asks for where layers are trees, if that is another."""

    name: str
    work: Callable[[Tool], None]
    before: Callable[[Tool], None]
    aims: dict[str, float]
    peers: tuple[str, ...] = ("docker", "podman")
    trees: float = 0


def nothing(tool: Tool) -> None:
    """A case without preparation."""
    del tool


def cases(scratch: Path) -> list[Case]:
    contexts = Contexts(scratch)
    five = contexts.plain(FIVE_RUNS)
    current: dict[tuple[str, str], Path] = {}

    def fresh_files(tool: Tool) -> None:
        current[tool.name, "copied"] = contexts.files(COPY_FILES)
        # What the tool before has left for the kernel to write must not be paid for by this one.
        os.sync()

    def fresh_big(tool: Tool) -> None:
        # Of this size, neither the contexts nor the images of all rounds have room.
        if (tool.name, "big") in current:
            shutil.rmtree(current[tool.name, "big"])
            forget(tool, "big")
        current[tool.name, "big"] = contexts.big(COPY_BIG, BIG)
        os.sync()

    def fresh_tar(tool: Tool) -> None:
        new_tar(debian_tar(), scratch / "new.tar")
        os.sync()

    def build_five(tool: Tool, *flags: str) -> None:
        tool("build", *tool.build, *flags, "-q", "-t", "five", str(five))

    def copy_then_run(tool: Tool, image: str) -> None:
        tool("build", *tool.build, "-q", "-t", image, str(current[tool.name, image]))
        tool("run", "--rm", *tool.run, image, "true")

    def import_then_run(tool: Tool) -> None:
        tool("import", str(scratch / "new.tar"), "debian")
        tool("run", "--rm", *tool.run, "debian", "true")

    run = ("run", "--rm")
    return [
        Case(
            "run --rm IMAGE true, bridge",
            lambda tool: tool(*run, *tool.run, "busybox", "true"),
            nothing,
            {"docker": 0.25, "podman": 0.18},
        ),
        Case(
            "run --rm --network none IMAGE true",
            lambda tool: tool(*run, "--network", "none", *tool.run, "busybox", "true"),
            nothing,
            {"podman": 0.45},
        ),
        Case("5 x RUN, no cache", lambda tool: build_five(tool, "--no-cache"), nothing, {"docker": 0.12}, ("docker",)),
        Case("5 x RUN, all cached", build_five, nothing, {"docker": 0.5}, ("docker",)),
        Case(
            "COPY of 10,000 files, then run",
            lambda tool: copy_then_run(tool, "copied"),
            fresh_files,
            {"docker": 0.12},
            ("docker",),
            0.5,
        ),
        Case(
            "COPY of one 1 GB file, then run",
            lambda tool: copy_then_run(tool, "big"),
            fresh_big,
            {"docker": 0.35},
            ("docker",),
            0.5,
        ),
        Case("import of Debian, then run", import_then_run, fresh_tar, {}, ("docker",)),
    ]


def forget(tool: Tool, image: str) -> None:
    """Remove an image and what was kept to build it again, where they are."""
    first, *others = tool.forget
    tool(*first, image, check=False)
    for command in others:
        tool(*command, check=False)


@contextmanager
def docker(scratch: Path) -> Iterator[Tool | None]:
    """A dockerd of our own, or None where docker is not installed."""
    daemon, client = shutil.which("dockerd"), "/usr/bin/docker"
    if not daemon or not os.path.exists(client):
        yield None
        return
    socket = f"unix://{scratch}/docker.sock"
    tool = Tool(
        "docker",
        (client, "-H", socket),
        environment={"DOCKER_BUILDKIT": "1"},
        forget=(("rmi", "-f"), ("builder", "prune", "-af")),
    )
    with open(scratch / "dockerd.log", "wb") as log:
        process = subprocess.Popen(
            [
                daemon,
                "-H",
                socket,
                *(f"--{name}={scratch}/docker-{name}" for name in ("data-root", "exec-root", "pidfile")),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(300):
            if subprocess.run([*tool.command, "info"], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        yield tool
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def podman(scratch: Path) -> Iterator[Tool | None]:
    """podman with runc on storage of its own, or None where it is not installed."""
    command = shutil.which("podman")
    if not command:
        yield None
        return
    tool = Tool(
        "podman",
        (command, "--runtime", "runc", "--root", f"{scratch}/podman", "--runroot", f"{scratch}/podman-run"),
        run=LIMITS,
    )
    yield tool
    subprocess.run([*tool.command, "system", "reset", "-f"], capture_output=True)


def give_busybox(tools: list[Tool], scratch: Path) -> None:
    """Give every tool the same busybox image."""
    tar = busybox_tar(scratch)
    for tool in tools:
        tool("import", str(tar), "busybox")


def measure(case: Case, tools: list[Tool], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by tool; one round more is run first and not counted."""
    times: dict[str, list[float]] = {tool.name: [] for tool in tools}
    for number in range(rounds + 1):
        for tool in tools:
            case.before(tool)
            begin = time.perf_counter()
            case.work(tool)
            if number:
                times[tool.name].append(time.perf_counter() - begin)
    return times


def report(case: Case, times: dict[str, list[float]]) -> None:
    """Print one case: medians, then the ratios to each peer."""
    parts = [f"{name} {statistics.median(values) * 1000:.0f} ms" for name, values in times.items()]
    print(f"{case.name}: " + ", ".join(parts) + f" ({load()})")
    trees = f", where layers are trees {case.trees:.2f}" if case.trees else ""
    for peer, values in times.items():
        if peer != "minidock":
            ratios = [own / other for own, other in zip(times["minidock"], values, strict=True)]
            aim = f" (aim {case.aims[peer]:.2f}{trees})" if peer in case.aims else ""
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"    minidock / {peer}: {statistics.median(ratios):.2f}, from {spread}{aim}")


def main() -> int:
    """Run the cases that match and print a report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count (default 9)")
    parser.add_argument("--only", default="", help="run the cases whose name holds this text")
    parser.add_argument("--minidock", default="minidock", help="the command to measure (default: minidock on PATH)")
    options = parser.parse_args()
    if os.geteuid():
        print("the tools start containers, so this needs root: sudo", *sys.argv, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="minidock-bench-", dir="/var/tmp") as folder:
        scratch = Path(folder)
        own = Tool("minidock", (options.minidock,), environment={"MINIDOCK_ROOT": f"{scratch}/minidock"})
        with docker(scratch) as docker_tool, podman(scratch) as podman_tool:
            tools = [tool for tool in (own, docker_tool, podman_tool) if tool]
            try:
                give_busybox(tools, scratch)
                for case in cases(scratch):
                    if options.only in case.name:
                        chosen = [tool for tool in tools if tool.name == "minidock" or tool.name in case.peers]
                        report(case, measure(case, chosen, options.rounds))
            finally:
                let_go(scratch / "minidock")
    return 0


if __name__ == "__main__":
    sys.exit(main())
