"""Exit statuses: 125 for the engine, 126, 127, 128 + n, and the program's own; what a person reads beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

RUN = ("run", "--rm", "--network", "none")


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_programs_own(minidock, status: int) -> None:
    minidock(*RUN, "busybox", "sh", "-c", f"exit {status}", status=status)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-such-flag", "busybox", "true"),
        ("-v", "x", "busybox", "true"),
        ("--mount", "type=nonsense,dst=/x", "busybox", "true"),
        ("no-such-image", "true"),
        ("UPPER", "true"),
        ("--cap-add", "NO_SUCH", "busybox", "true"),
        ("--network", "no-such", "busybox", "true"),
        ("-u", "nobody-there", "busybox", "true"),
        ("-w", "relative", "busybox", "true"),
        ("--stop-signal", "NOSUCH", "busybox", "true"),
        ("--shm-size", "lots", "busybox", "true"),
        ("--security-opt", "nonsense", "busybox", "true"),
        ("--name", "-bad", "busybox", "true"),
        (),
    ],
    ids=lambda arguments: " ".join(arguments) or "no image",
)
def test_125_for_what_the_engine_refuses(minidock, arguments: tuple[str, ...]) -> None:
    done = minidock("run", *arguments, status=125)
    assert done.stderr.startswith(("minidock: ", "Usage:")), done.stderr
    # A name that is not in the image is found out at the start only, which leaves the container for a look.
    assert minidock.out("ps", "-aq") == "" or arguments[0] == "-u"


def test_125_for_a_bad_flag_of_any_command(minidock) -> None:
    for command in ("ps", "images", "volume ls", "info", "logs", "build"):
        done = minidock(*command.split(), "--no-such-flag", status=125)
        assert "--no-such-flag" in done.stderr


def test_126_for_what_cannot_be_executed(minidock, context) -> None:
    minidock(*RUN, "busybox", "/etc", status=126)
    minidock(*RUN, "busybox", "/etc/passwd", status=126)
    folder = context("FROM busybox\nCOPY --chmod=755 text /text\n", {"text": "echo no shebang\n"})
    minidock.build(folder, "-t", "text")
    assert "exec format error" in minidock(*RUN, "text", "/text", status=126).stderr


def test_127_for_what_is_not_there(minidock) -> None:
    assert "no-such" in minidock(*RUN, "busybox", "no-such", status=127).stderr
    minidock(*RUN, "busybox", "/no/such", status=127)


def test_a_missing_interpreter_or_loader_is_named(minidock, context) -> None:
    files = {"script": "#!/usr/bin/python9\n", "windows": "#!/bin/sh\r\n", "dynamic": Path("/bin/true").read_bytes()}
    folder = context("FROM busybox\nCOPY --chmod=755 script windows dynamic /x/\n", files)
    minidock.build(folder, "-t", "broken")
    assert "/usr/bin/python9" in minidock(*RUN, "broken", "/x/script", status=127).stderr
    assert "carriage return" in minidock(*RUN, "broken", "/x/windows", status=127).stderr
    assert "ld-linux" in minidock(*RUN, "broken", "/x/dynamic", status=127).stderr


@pytest.mark.parametrize("signal", [9, 15, 6])
def test_128_plus_n(minidock, signal: int) -> None:
    """The first process of a pid namespace ignores what it sends itself, so a signal comes from outside."""
    minidock("run", "-d", "--name", "one", "--network", "none", "--init", "busybox", "sleep", "1000")
    script = f"for p in /proc/[0-9]*; do [ $(cat $p/comm) != sleep ] || kill -{signal} ${{p#/proc/}}; done"
    minidock("exec", "one", "sh", "-c", script, status=None)
    assert minidock.out("wait", "one") == str(128 + signal)


def test_exec(minidock) -> None:
    minidock("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    minidock("exec", "one", "sh", "-c", "exit 5", status=5)
    minidock("exec", "one", "no-such", status=127)
    minidock("exec", "one", "/etc", status=126)
    minidock("stop", "-t", "0", "one")
    assert "not running" in minidock("exec", "one", "true", status=1).stderr


def test_streams_are_kept_apart_and_exact(minidock) -> None:
    done = minidock(*RUN, "busybox", "sh", "-c", "printf out; printf err >&2")
    assert (done.stdout, done.stderr) == ("out", "err")


def test_standard_input(minidock) -> None:
    assert minidock(*RUN, "-i", "busybox", "cat", stdin="hello").stdout == "hello"
    assert minidock(*RUN, "busybox", "cat", stdin="hello").stdout == ""


def test_a_large_output_arrives_whole(minidock) -> None:
    done = minidock(*RUN, "busybox", "sh", "-c", "seq 200000")
    assert done.stdout.split() == [str(n) for n in range(1, 200001)]


def test_terminal_without_one_is_refused(minidock) -> None:
    assert "TTY" in minidock("run", "--rm", "-it", "busybox", "true", status=None, stdin="").stderr
