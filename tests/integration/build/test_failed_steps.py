"""What a failed step leaves can be run, listed and removed; a shell in it has what the command had."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock import Engine
from minidock.errors import BuildError, UsageError
from minidock.store.failed_steps import FailedSteps
from minidock.store.layout import DataRoot
from tests.integration.build.test_build_view import Terminal, is_sane

HOW = "look around where it failed: minidock run -it --rm FAILED\n"
NOTE = "The build ends when you leave it."
FAILING = """FROM busybox
ARG WHO=me
ENV A=1
RUN --network=none mkdir -m 777 /work
WORKDIR /work
USER 1000:7
RUN --network=none echo half > /work/half; rm /tmp/gone 2>/dev/null; echo said; echo so >&2; exit 3
ENV A=2
USER root
ENTRYPOINT ["x"]
"""
Context = Callable[..., Path]


def kept(minidock: Any) -> list[str]:
    """The names under which failed steps are kept, the latest first."""
    return [step.name for step in FailedSteps(DataRoot(str(minidock.root))).list()]


def failing(minidock: Any, folder: Path, *arguments: str) -> str:
    """Build what fails; standard error."""
    err: str = minidock.build(folder, *arguments, status=1)
    return err


def blobs(minidock: Any) -> set[str]:
    return set(os.listdir(DataRoot(str(minidock.root)).blobs))


@pytest.mark.parametrize("layers", ["tree", "tarball"])
def test_it_can_be_run(minidock: Any, context: Context, layers: str) -> None:
    before = minidock.out("images", "-q", "--no-trunc")
    err = failing(minidock, context(FAILING))
    assert err.endswith(HOW)
    look = "id -u; pwd; echo $A $WHO; cat half"
    out = minidock.out("run", "--rm", "--network", "none", "FAILED", "sh", "-c", look).splitlines()
    assert out == ["1000", "/work", "1 me", "half"]
    (name,) = kept(minidock)
    assert minidock.out("run", "--rm", "--network", "none", name, "cat", "/work/half") == "half"
    assert minidock("run", "--rm", "--network", "none", "FAILED", status=0).stdout == "", "a shell without input"
    assert minidock("run", "--rm", "--network", "none", "FAILED~1", "ls", "/work").stdout == ""
    assert minidock.out("images", "-q", "--no-trunc") == before
    listed = [line.split()[:2] for line in minidock.out("images", "-a").splitlines()]
    assert ["FAILED", name.partition(":")[2]] in listed
    assert "half" in minidock.out("history", "FAILED").splitlines()[1]
    assert minidock.inspect("FAILED")["Config"]["Env"].count("A=1") == 1
    assert minidock.out("system", "check").splitlines()[-1]


def test_every_driver_keeps_what_was_changed(shop: Any) -> None:
    shop.file("deep/file")
    text = "FROM busybox\nCOPY deep /deep\nRUN rm -r /deep; mkdir /made; echo x > /made/x; chmod 700 /tmp; exit 1\n"
    with pytest.raises(BuildError) as caught:
        shop.build(text, keep_failed=True)
    image = shop.images.get(caught.value.kept)
    tree = shop.tree(image)
    assert "deep" not in tree
    assert tree["made/x"][0] == "file:x\n"
    assert tree["tmp"][1] == 0o700
    assert "made" not in shop.tree(shop.images.get("FAILED~1"))
    assert "deep/file" in shop.tree(shop.images.get("FAILED~1"))


def test_mount_points_are_not_in_it(overlay_shop: Any) -> None:
    text = "FROM busybox\nRUN --mount=type=cache,target=/cache/deep --mount=target=/src touch /cache/deep/x; exit 1\n"
    with pytest.raises(BuildError) as caught:
        overlay_shop.build(text, keep_failed=True)
    assert not {"cache", "src"} & set(overlay_shop.tree(overlay_shop.images.get(caught.value.kept)))


def test_of_stages_side_by_side(minidock: Any, context: Context) -> None:
    folder = context(
        "FROM busybox AS base\nRUN touch /base\nFROM base AS one\nRUN sleep 60\nFROM base AS two\n"
        "RUN touch /first\nRUN echo said; touch /second; exit 5\nFROM busybox\nCOPY --from=one /x /\n"
        "COPY --from=two /x /\n"
    )
    err = failing(minidock, folder, "--jobs", "2")
    assert err.endswith(HOW)
    assert "exit code: 5" in err
    assert len(kept(minidock)) == 1
    out = minidock.out("run", "--rm", "--network", "none", "FAILED", "sh", "-c", "ls /base /first /second")
    assert out.split() == ["/base", "/first", "/second"]
    again = failing(minidock, folder, "--jobs", "2", "--target", "two")
    assert re.search(r"^#\d+ CACHED$", again, re.M)


def test_another_step_leaves_what_it_stood_on(minidock: Any, context: Context) -> None:
    err = failing(minidock, context("FROM busybox\nRUN touch /there\nCOPY nothing /\n"))
    assert err.endswith(HOW)
    minidock("run", "--rm", "--network", "none", "FAILED", "ls", "/there")


def test_nothing_is_kept_where_nothing_is_to_be(minidock: Any, context: Context) -> None:
    folder = context("FROM busybox\nRUN touch /half; exit 1\n")
    assert "FAILED" not in failing(minidock, folder, "--on-error=discard")
    assert kept(minidock) == []
    done = minidock("run", "--rm", "FAILED", status=125)
    assert done.stderr.startswith("minidock: no failed step of a build is kept\n")
    refused = minidock("build", "--on-error=ask", folder, status=125)
    assert "invalid value 'ask' for --on-error: it is keep, discard or shell" in refused.stderr
    assert "FAILED" not in failing(minidock, context("FROM scratch\nRUN echo\n"))


def test_the_latest_few_are_kept(minidock: Any, context: Context) -> None:
    names = []
    for number in range(7):
        failing(minidock, context(f"FROM busybox\nRUN --network=none echo {number} > /half; exit 1\n"))
        names.insert(0, kept(minidock)[0])
        if number == 0:
            first = {step.diff_ids[-1][7:] for step in FailedSteps(DataRoot(str(minidock.root))).list()}
            assert first <= blobs(minidock)
    assert kept(minidock) == names[:5]
    assert not first & blobs(minidock), "what the others had written is gone"
    done = minidock("run", "--rm", names[-1], status=125)
    assert done.stderr.startswith(f"minidock: no such failed step of a build: {names[-1]}\n")


def test_it_goes_with_the_build_cache_or_by_name(minidock: Any, context: Context) -> None:
    folder = context("FROM busybox\nRUN --network=none echo x > /half; exit 1\n")
    before = blobs(minidock)
    failing(minidock, folder)
    (name,) = kept(minidock)
    assert name in minidock.out("builder", "du", "--filter", "type=failed")
    container = minidock.out("create", "--network", "none", "FAILED", "cat", "/half")
    assert minidock.out("rmi", name).startswith("Deleted: sha256:")
    assert kept(minidock) == []
    assert minidock.out("start", "-a", container) == "x", "a container keeps its files"
    minidock("rm", container)
    failing(minidock, folder)
    assert minidock.out("rmi", minidock.out("images", "-aq").splitlines()[0])
    failing(minidock, folder)
    minidock("builder", "prune", "-f")
    assert kept(minidock) == []
    assert blobs(minidock) == before


def test_it_can_be_named_where_an_image_can(minidock: Any, context: Context) -> None:
    failing(minidock, context(FAILING))
    minidock("tag", "FAILED", "rescued:now")
    folder = context("FROM FAILED\nRUN --network=none cat half > /work/whole\n")
    minidock.build(folder, "-t", "mended")
    minidock("builder", "prune", "-af")
    assert minidock.out("run", "--rm", "--network", "none", "rescued:now", "cat", "half") == "half"
    assert minidock.out("run", "--rm", "--network", "none", "mended", "cat", "whole") == "half"


@pytest.mark.parametrize("leak", ["cat /run/secrets/s > /leak", "echo $S > /leak"])
def test_of_a_secret_nothing_is_kept(minidock: Any, context: Context, leak: str, tmp_path: Path) -> None:
    secret = "hush-0123456789-hush"
    (tmp_path / "s").write_text(secret)
    mounts = "--mount=type=secret,id=s --mount=type=secret,id=s,env=S"
    err = failing(
        minidock,
        context(f"FROM busybox\nRUN touch /there\nRUN --network=none {mounts} {leak}; exit 1\n"),
        "--secret",
        f"id=s,src={tmp_path / 's'}",
    )
    assert "look around where it failed, without what it wrote, since it had a secret: " in err
    minidock("run", "--rm", "--network", "none", "FAILED", "ls", "/there")
    minidock("run", "--rm", "--network", "none", "FAILED", "ls", "/leak", status=1)
    found = subprocess.run(["grep", "-rl", secret, minidock.root], capture_output=True, text=True)
    assert found.stdout == ""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_who_breaks_a_build_off_keeps_nothing(minidock: Any, context: Context, how: signal.Signals) -> None:
    folder = context("FROM busybox\nRUN --network=none touch /half; echo begun; sleep 60\n")
    with minidock.popen("build", folder) as build:
        for line in build.stderr:
            if line.rstrip().endswith(b" begun"):
                break
        build.send_signal(how)
        build.communicate(timeout=20)
    assert kept(minidock) == []


def test_killed_while_it_is_kept(minidock: Any, context: Context) -> None:
    """At random instants after the command has failed: what is kept is whole, and the next build finds all in order."""
    seed = int(os.environ.get("MINIDOCK_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"MINIDOCK_SEED={seed}")
    rnd, root = random.Random(seed), DataRoot(str(minidock.root))
    work = "RUN --network=none seq 1 400000 > /half; echo begun; exit 1\n"
    for number in range(6):
        with minidock.popen("build", context(f"FROM busybox\nENV N={number}\n{work}")) as build:
            for line in build.stderr:
                if line.rstrip().endswith(b" begun"):
                    break
            time.sleep(rnd.uniform(0, 0.12))
            build.kill()
            build.communicate(timeout=20)
        for name in kept(minidock):
            out = minidock.out("run", "--rm", "--network", "none", name, "tail", "-n1", "/half")
            assert out == "400000"
    failing(minidock, context(f"FROM busybox\n{work}"))
    assert os.listdir(root.tmp) == []
    assert minidock.out("run", "--rm", "--network", "none", "FAILED", "tail", "-n1", "/half") == "400000"
    minidock("system", "check")


@pytest.mark.parametrize("may_fork", [False, True])
def test_a_program_is_told_by_the_error(minidock: Any, context: Context, may_fork: bool) -> None:
    engine = Engine(str(minidock.root), may_fork=may_fork)
    with pytest.raises(BuildError) as caught:
        engine.build(str(context(FAILING)))
    error = caught.value
    assert (error.status, error.line) == (3, 7)
    assert sorted(error.output.splitlines()) == ["said", "so"]
    assert [error.kept] == kept(minidock) == [image.names[0] for image in engine.images(all=True)[:1]]
    result = engine.run(error.kept, "cat", "/work/half", network="none", auto_remove=True)
    assert result.stdout == b"half\n"
    with pytest.raises(BuildError) as caught:
        engine.build(str(context("FROM busybox\nCOPY nothing /\n")), on_error="discard")
    assert (caught.value.status, caught.value.output, caught.value.kept) == (0, "", "")
    with pytest.raises(UsageError):
        engine.build(str(context(FAILING)), on_error="shell")


# Shells


Open = Callable[..., Terminal]


@pytest.fixture
def open_build(minidock: Any) -> Iterator[Open]:
    opened = []

    def start(*arguments: str | Path, columns: int = 160) -> Terminal:
        environment = {**minidock.environment, "TERM": "xterm-256color", "MINIDOCK_DEBUG": ""}
        command = [minidock.command, "build", "--on-error=shell", *map(str, arguments)]
        opened.append(Terminal(command, environment, columns=columns, lines=40))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def in_shell(terminal: Terminal) -> None:
    """Wait for the shell's first prompt."""
    terminal.read_until(lambda: NOTE in terminal.text())
    at_prompt(terminal)


def at_prompt(terminal: Terminal) -> None:
    terminal.read_until(lambda: terminal.text().endswith(("$", "#")))


def say(terminal: Terminal, command: str, answer: str) -> None:
    """Type a command at the prompt and wait for a line of its output, which its own text has not."""
    at_prompt(terminal)
    os.write(terminal.fd, f"{command}\n".encode())
    terminal.read_until(lambda: answer in terminal.text().splitlines())


def settings(terminal: Terminal) -> list[Any]:
    return termios.tcgetattr(terminal.fd)


def test_a_shell_where_it_failed(minidock: Any, context: Context, open_build: Open) -> None:
    folder = context(FAILING)
    terminal = open_build(folder)
    before = settings(terminal)
    in_shell(terminal)
    # Nobody who comes to the same step waits for a person who looks.
    failing(minidock, folder, "--on-error=discard")
    shown = terminal.text()
    assert re.search(r"^\[\+\] Failed after .*^ => ERROR .*^minidock: process .*exit code: 3$", shown, re.M | re.S)
    assert shown.index("exit code: 3\n") < shown.index(NOTE)
    assert settings(terminal) != before, "the shell's own terminal sees every key"
    say(terminal, "echo $(id -u) $PWD $A$WHO $(cat half)", "1000 /work 1me half")
    say(terminal, "stty size | tr ' ' x", "40x160")
    terminal.resize(170, 50)
    say(terminal, "sleep 0.2; stty size | tr ' ' x", "50x170")
    say(terminal, "cat /proc/1/comm; ls /sys/class/net | tr '\\n' .; echo", "lo.")
    at_prompt(terminal)
    os.write(terminal.fd, b"sleep 54320\n")
    wait_for(lambda: running(b"sleep\x0054320\0"))
    os.write(terminal.fd, b"\x03")
    say(terminal, "echo code$?", "code130")
    say(terminal, "echo looked > looked; echo don''e", "done")
    os.write(terminal.fd, b"exit 9\n")
    assert terminal.finish() == 1, "the error's own status"
    assert terminal.text().endswith(HOW.rstrip())
    assert is_sane(terminal)
    assert settings(terminal) == before
    assert minidock.out("run", "--rm", "--network", "none", "FAILED", "cat", "half", "looked") == "half\nlooked"


def test_a_shell_has_the_mounts(minidock: Any, context: Context, open_build: Open, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("hush-0123456789-hush")
    mounts = (
        "--mount=type=cache,target=/cache --mount=target=/src --mount=type=secret,id=s --mount=type=tmpfs,target=/t"
    )
    folder = context(f"FROM busybox\nRUN --network=none {mounts} touch /cache/c; exit 1\n", {"file": "content"})
    terminal = open_build("--progress=plain", "--secret", f"id=s,src={tmp_path / 's'}", folder)
    in_shell(terminal)
    say(terminal, "ls /cache; cat /src/file; echo; wc -c < /run/secrets/s; stat -fc %T /t", "tmpfs")
    assert "\nc\ncontent\n20\ntmpfs" in terminal.text()
    say(terminal, "cp /run/secrets/s /leak; echo don''e", "done")
    at_prompt(terminal)
    os.write(terminal.fd, b"\x04")
    assert terminal.finish() == 1
    found = subprocess.run(["grep", "-rl", "hush-0123456789-hush", minidock.root], capture_output=True, text=True)
    assert found.stdout == ""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_shell_ends_with_its_build(minidock: Any, context: Context, open_build: Open, how: signal.Signals) -> None:
    terminal = open_build(context(FAILING))
    before = settings(terminal)
    in_shell(terminal)
    os.kill(terminal.process.pid, how)
    assert terminal.finish() == 128 + how
    assert settings(terminal) == before
    assert os.listdir(DataRoot(str(minidock.root)).tmp) == []
    assert kept(minidock) == []


def test_a_shell_dies_with_a_builder_that_is_killed(minidock: Any, context: Context, open_build: Open) -> None:
    terminal = open_build(context(FAILING))
    in_shell(terminal)
    say(terminal, "sleep 54321 & echo don''e", "done")
    wait_for(lambda: running(b"sleep\x0054321\0"))
    terminal.process.kill()
    wait_for(lambda: not running(b"sleep\x0054321\0"))
    terminal.finish()
    minidock("build", context("FROM busybox\nRUN --network=none true\n"))
    assert os.listdir(DataRoot(str(minidock.root)).tmp) == []


def wait_for(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(command: bytes) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes() == command:
                    return True
            except OSError:
                continue
    return False


def test_what_has_no_shell(minidock: Any, context: Context, open_build: Open) -> None:
    folder = context('FROM busybox\nSHELL ["/no/shell", "-c"]\nRUN ["/bin/false"]\n')
    terminal = open_build(folder)
    assert terminal.finish() == 1
    assert "no shell could be opened: " in terminal.text()
    assert "Traceback" not in terminal.text()


def test_a_build_that_succeeds_opens_none(minidock: Any, context: Context, open_build: Open) -> None:
    terminal = open_build("-t", "fine", context("FROM busybox\nRUN --network=none true\n"))
    assert terminal.finish() == 0
    assert NOTE not in terminal.text()
    minidock("run", "--rm", "--network", "none", "fine", "true")


def test_a_shell_needs_a_terminal(minidock: Any, context: Context) -> None:
    folder = context(FAILING)
    done = minidock("build", "--on-error=shell", folder, status=125)
    assert done.stderr.splitlines()[0] == (
        "minidock: --on-error=shell needs a terminal on standard input and standard error"
    )
    assert kept(minidock) == []


def test_what_is_written_beneath_stays_beneath(minidock: Any, context: Context) -> None:
    """The layers of the failed step are those that the next build takes from the cache."""
    folder = context("FROM busybox\nRUN --network=none echo a > /a\nRUN --network=none echo b > /b; exit 1\n")
    failing(minidock, folder)
    before = blobs(minidock)
    assert "CACHED" in failing(minidock, folder)
    assert len(kept(minidock)) in (1, 2), "one, where the clock has not ticked"
    assert len(blobs(minidock) - before) <= 2
