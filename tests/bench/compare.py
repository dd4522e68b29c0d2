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

FIVE_RUNS = "FROM busybox\n" + "".join(f"RUN echo {n} > /file{n}\n" for n in range(5))
COPY_FILES = "FROM busybox\nCOPY files /files\n"
# podman asks for more than the hard limits of an unprivileged host allow.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


class Tool(NamedTuple):
    """A tool under test: how it is called, and the flags that its ``run`` and ``build`` need here."""

    name: str
    command: tuple[str, ...]
    run: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012 - never changed

    def __call__(self, *arguments: str, check: bool = True) -> None:
        subprocess.run(
            [*self.command, *arguments],
            check=check,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )


class Case(NamedTuple):
    """One row: ``work`` is timed, ``before`` is not; ``aims`` are the ratios that the design asks for, by peer."""

    name: str
    work: Callable[[Tool], None]
    before: Callable[[Tool], None]
    aims: dict[str, float]
    peers: tuple[str, ...] = ("docker", "podman")


def nothing(tool: Tool) -> None:
    """A case without preparation."""
    del tool


def cases(scratch: Path) -> list[Case]:
    five, files = scratch / "five", scratch / "files"
    count = iter(range(1_000_000))

    def new_context(source: Path, text: str) -> Path:
        target = scratch / f"context{next(count)}"
        target.mkdir()
        (target / "Dockerfile").write_text(text)
        if source.exists():
            shutil.copytree(source, target / "files")
        return target

    current: dict[str, Path] = {}

    def fresh_files(tool: Tool) -> None:
        # The former one stays: ext4 makes files slowly for a minute after many were deleted (inodes that were freed
        # lately are passed over one by one), which would be paid for by whoever is next.
        current[tool.name] = new_context(files, COPY_FILES)
        (current[tool.name] / "files" / "stamp").write_text(f"{tool.name} {time.time_ns()}")
        # What the tool before has left for the kernel to write must not be paid for by this one.
        os.sync()

    def build_five(tool: Tool, *flags: str) -> None:
        tool("build", *tool.build, *flags, "-q", "-t", "five", str(five))

    def copy_then_run(tool: Tool) -> None:
        tool("build", *tool.build, "-q", "-t", "copied", str(current[tool.name]))
        tool("run", "--rm", *tool.run, "copied", "true")

    five.mkdir()
    (five / "Dockerfile").write_text(FIVE_RUNS)
    files.mkdir()
    for number in range(10_000):
        folder = files / f"d{number // 100}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_bytes(os.urandom(512) * 16)
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
        Case("COPY of 10,000 files, then run", copy_then_run, fresh_files, {"docker": 0.5}, ("docker",)),
    ]


@contextmanager
def docker(scratch: Path) -> Iterator[Tool | None]:
    """A dockerd of our own, or None where docker is not installed."""
    daemon, client = shutil.which("dockerd"), "/usr/bin/docker"
    if not daemon or not os.path.exists(client):
        yield None
        return
    socket = f"unix://{scratch}/docker.sock"
    tool = Tool("docker", (client, "-H", socket), environment={"DOCKER_BUILDKIT": "1"})
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
    tree = scratch / "tree"
    for name in ("bin", "etc", "proc", "sys", "dev", "root", "tmp"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    listed = subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in listed:
        if applet != "busybox":
            (tree / "bin" / applet).hardlink_to(tree / "bin/busybox")
    subprocess.run(["tar", "-C", tree, "-cf", scratch / "busybox.tar", "."], check=True)
    for tool in tools:
        tool("import", f"{scratch}/busybox.tar", "busybox")


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
    print(f"{case.name}: " + ", ".join(parts))
    for peer, values in times.items():
        if peer != "minidock":
            ratios = [own / other for own, other in zip(times["minidock"], values, strict=True)]
            aim = f" (aim {case.aims[peer]})" if peer in case.aims else ""
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
            give_busybox(tools, scratch)
            for case in cases(scratch):
                if options.only in case.name:
                    chosen = [tool for tool in tools if tool.name == "minidock" or tool.name in case.peers]
                    report(case, measure(case, chosen, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
