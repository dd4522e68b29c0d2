"""Stages side by side: what runs at once, what is passed on, and what a failure or a signal leaves."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    return folder


def write(context: Path, text: str) -> None:
    (context / "Dockerfile").write_text(text)


def two(left: str, right: str, *, shared: str = "") -> str:
    """Two stages with a command each, and one that has something of both."""
    return (
        f"FROM busybox AS base\n{shared}\nFROM base AS left\nRUN {left}\nFROM base AS right\nRUN {right}\n"
        "FROM busybox\nCOPY --from=left /l* /\nCOPY --from=right /r* /\n"
    )


def sleepers() -> list[int]:
    """The processes of the commands that sleep."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cmdline").read_bytes() in (b"sleep\x0061\0", b"sleep\x0062\0"):
                    found.append(int(entry.name))
    return found


def left_over(minidock: Any) -> list[str]:
    root = Path(minidock.root)
    return [str(path) for path in (root / "tmp").iterdir()]


def times(progress: str, title: str) -> tuple[float, float]:
    """When a step's command began and ended, as it said itself."""
    number = re.search(rf"^#(\d+) \[.*{title}", progress, re.M)
    assert number, progress
    found = re.findall(rf"^#{number[1]} [\d.]+ at ([\d.]+)$", progress, re.M)
    return float(found[0]), float(found[-1])


CLOCK = "cut -d' ' -f1 /proc/uptime | sed 's/^/at /'"


def test_independent_stages_overlap(minidock: Any, context: Path) -> None:
    write(context, two(f"{CLOCK}; sleep 1; touch /l; {CLOCK}", f"{CLOCK}; sleep 1; touch /r; {CLOCK}"))
    out = minidock.build(context, "--jobs", "2")
    left, right = times(out, "RUN .*touch /l"), times(out, "RUN .*touch /r")
    assert left[0] < right[1]
    assert right[0] < left[1]
    again = minidock.build(context, "--jobs", "2")
    assert len(re.findall("CACHED$", again, re.M)) == len(re.findall(r"^#\d+ \[.*\d/\d\]", again, re.M)) > 5
    assert left_over(minidock) == []


def test_one_job_is_one_after_the_other(minidock: Any, context: Path) -> None:
    write(context, two(f"{CLOCK}; sleep 0.3; touch /l; {CLOCK}", f"{CLOCK}; touch /r; {CLOCK}"))
    out = minidock.build(context, "--jobs", "1")
    assert times(out, "RUN .*touch /l")[1] <= times(out, "RUN .*touch /r")[0]


@pytest.mark.parametrize("jobs", ["1", "2", "8"])
def test_the_image_is_the_same(minidock: Any, context: Path, jobs: str) -> None:
    """Whatever ran where, the next build finds it."""
    write(context, two("cat /b > /left", "cat /b /b > /right", shared="RUN echo b > /b"))
    minidock.build(context, "-t", "it", "--jobs", jobs)
    assert minidock.out("run", "--rm", "it", "cat", "/left", "/right") == "b\nb\nb"
    layers = minidock.inspect("it")["RootFS"]["Layers"]
    minidock.build(context, "-t", "other", "--jobs", "1")
    assert minidock.inspect("other")["RootFS"]["Layers"] == layers


def test_a_failure_ends_the_others_and_is_told_with_its_place(minidock: Any, context: Path) -> None:
    write(context, two("sleep 60; touch /l", "sleep 0.5; echo last words; exit 7"))
    begun = time.monotonic()
    done = minidock("build", "--jobs", "2", "-t", "it", context, status=1)
    assert time.monotonic() - begun < 30
    assert re.search(r"^#\d+ [\d.]+ last words$", done.stderr, re.M)
    assert re.search(r"^#\d+ CANCELED$", done.stderr, re.M)
    assert "Dockerfile:6" in done.stderr
    assert ">>> RUN sleep 0.5; echo last words; exit 7" in done.stderr
    assert left_over(minidock) == []
    assert minidock("inspect", "it", status=None).returncode == 1


def test_what_was_done_before_a_failure_serves_the_next_build(minidock: Any, context: Path) -> None:
    write(context, two("touch /l", "sleep 1; exit 7"))
    minidock("build", "--jobs", "2", context, status=1)
    write(context, two("touch /l", "touch /r"))
    assert re.search(r"RUN touch /l\n(#.*\n|\n)*?#\d+ CACHED", minidock.build(context))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_all_and_leaves_nothing(minidock: Any, context: Path, number: signal.Signals) -> None:
    write(context, two("echo begun; sleep 61; touch /l", "echo begun; sleep 62; touch /r"))
    process = minidock.popen("build", "--jobs", "2", context)
    seen = b""
    while len(re.findall(rb"^#\d+ [\d.]+ begun$", seen, re.M)) < 2:
        chunk = os.read(process.stderr.fileno(), 65536)
        assert chunk, seen
        seen += chunk
    process.send_signal(number)
    _, rest = process.communicate(timeout=30)
    assert process.returncode in (130, 143, -number)
    deadline = time.monotonic() + 10
    while (held := sleepers()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert held == []
    if number != signal.SIGKILL:
        assert len(re.findall(rb"^#\d+ CANCELED$", rest, re.M)) == 2
        assert left_over(minidock) == []
    minidock("ps", "-a")
    write(context, two("touch /l", "touch /r"))
    minidock.build(context)
    assert left_over(minidock) == []


def test_a_failure_in_the_background_ends_the_others_too(minidock: Any, context: Path) -> None:
    """There a shell has the keyboard's signal ignored, and what ignores it from its start on passes that on."""
    write(context, two("sleep 61; touch /l", "sleep 0.3; exit 7"))
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", minidock.command, "build", "--jobs", "2", str(context)]
    done = subprocess.run(command, env=minidock.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert re.search(rb"^#\d+ CANCELED$", done.stderr, re.M)
    assert left_over(minidock) == []
    assert sleepers() == []


def test_a_stage_that_is_asked_to_end_cleans_up(minidock: Any, context: Path) -> None:
    """As a service manager asks: every process at once."""
    write(context, two("echo begun; sleep 61", "echo begun; sleep 62"))
    process = minidock.popen("build", "--jobs", "2", context)
    seen = b""
    while len(re.findall(rb"^#\d+ [\d.]+ begun$", seen, re.M)) < 2:
        seen += os.read(process.stderr.fileno(), 65536)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (*children, process.pid):
        os.kill(int(pid), signal.SIGTERM)
    _, rest = process.communicate(timeout=30)
    assert process.returncode in (1, 143)
    assert b"Traceback" not in rest
    assert left_over(minidock) == []


def test_a_killed_stage_is_told(minidock: Any, context: Path) -> None:
    write(context, two("echo begun; sleep 61", "echo begun; sleep 62"))
    process = minidock.popen("build", "--jobs", "2", context)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    seen = b""
    while len(re.findall(rb"^#\d+ [\d.]+ begun$", seen, re.M)) < 2:
        seen += os.read(process.stderr.fileno(), 65536)
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"was killed from outside" in rest
    assert b"Traceback" not in rest


def test_equal_steps_of_two_builds_at_once_run_once(minidock: Any, tmp_path: Path) -> None:
    """Each run of the command leaves a layer of its own: a random number."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write(folder, "FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /r\nRUN touch /after\n")
    running = [minidock.popen("build", "-t", folder.name, folder) for folder in folders]
    for process in running:
        assert process.communicate(timeout=60) is not None
        assert process.returncode == 0
    first, second = (minidock.inspect(name)["RootFS"]["Layers"] for name in "ab")
    assert first == second


def test_equal_steps_of_two_stages_run_once(minidock: Any, context: Path) -> None:
    command = "sleep 0.5; cat /proc/sys/kernel/random/uuid > /same"
    write(
        context,
        f"FROM busybox AS left\nRUN {command}\nRUN touch /l\nFROM busybox AS right\nRUN {command}\nRUN touch /r\n"
        "FROM busybox\nCOPY --from=left /same /left\nCOPY --from=right /same /right\nRUN cmp /left /right\n",
    )
    minidock.build(context, "--jobs", "2")


def test_a_killed_build_s_claim_is_free(minidock: Any, context: Path) -> None:
    write(context, "FROM busybox\nRUN echo begun; sleep $(cat /proc/sys/kernel/random/entropy_avail | head -c 0)60\n")
    process = minidock.popen("build", context)
    seen = b""
    while not re.search(rb" begun$", seen, re.M):
        seen += os.read(process.stderr.fileno(), 65536)
    other = subprocess.Popen(
        [minidock.command, "build", "-t", "other", str(context)],
        env=minidock.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert other.stderr is not None
    seen = b""
    while not re.search(rb"\[2/2\] RUN", seen):
        seen += os.read(other.stderr.fileno(), 65536)
    process.kill()
    process.communicate()
    # The other one runs it now.
    while not re.search(rb" begun$", seen, re.M):
        chunk = os.read(other.stderr.fileno(), 65536)
        assert chunk, seen
        seen += chunk
    other.send_signal(signal.SIGINT)
    other.communicate(timeout=30)


def test_who_waits_for_a_step_does_not_wait_for_the_rest_of_its_build(minidock: Any, tmp_path: Path) -> None:
    """What was made for later steps, the process that runs commands above all, holds nothing of a claim."""
    folders = [tmp_path / "long", tmp_path / "short"]
    for folder, rest in zip(folders, ("echo later; sleep 61", "touch /after"), strict=True):
        folder.mkdir()
        write(folder, f"FROM busybox\nRUN echo begun; sleep 2; touch /same\nRUN {rest}\n")
    first = minidock.popen("build", folders[0])
    seen = b""
    while not re.search(rb" begun$", seen, re.M):
        seen += os.read(first.stderr.fileno(), 65536)
    try:
        out = minidock.build(folders[1], timeout=30)
        assert first.poll() is None
        told = "waiting for another process that runs the same step"
        assert re.search(rf"RUN echo begun; sleep 2; touch /same\n#\d+ [\d.]+ {told}\n#\d+ CACHED", out), out
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=30)
