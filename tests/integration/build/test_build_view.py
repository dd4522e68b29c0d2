"""The live view on a real terminal: captures, held against golden text, and what is left of the terminal afterwards.

``golden/NAME.txt`` is what a person sees, with the times as 0.0s and digests as DIGEST. After a change that is meant,
write it anew with MINIDOCK_WRITE_GOLDEN=1, and look at it.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyte
import pytest

GOLDEN = Path(__file__).parent / "golden"
LONGEST = 60.0
TWO_STAGES = """FROM busybox AS build
WORKDIR /src
COPY . /src
RUN for i in 1 2 3 4 5 6 7 8 9; do echo "compiling file $i"; done; [ ! -e wait ] || sleep 1000
FROM busybox
COPY --from=build /src/a /a
ENV A=1
"""
FAILING = r"""FROM busybox
COPY Dockerfile /
# The next line fails.
RUN echo one; printf 'bad \033[31mred\033[0m \033]52;c;aGk=\007 \342\200\256 end\n'; exit 3
RUN echo never
"""


class Terminal:
    """A terminal with a process in it; ``screen`` is what a person sees."""

    def __init__(self, command: list[str], environment: dict[str, str], *, columns: int, lines: int) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.fd, inner = pty.openpty()
        self._resize(columns, lines)
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=adopt,  # noqa: PLW1509 - there are no threads here
        )
        os.close(inner)

    def read_until(self, seen: Callable[[], bool]) -> None:
        """Read until something is seen; fail when it never is."""
        end = time.monotonic() + LONGEST
        while not seen():
            assert time.monotonic() < end, self.text()
            assert self._read(), self.text()

    def finish(self) -> int:
        """Read until nobody has the terminal any more; the exit status."""
        end = time.monotonic() + LONGEST
        while self._read():
            assert time.monotonic() < end, self.text()
        return self.process.wait(LONGEST)

    def resize(self, columns: int, lines: int) -> None:
        self._resize(columns, lines)
        self.screen.resize(lines, columns)

    def text(self) -> str:
        """Everything that was shown, what has scrolled away too."""
        above = ["".join(line[x].data for x in range(self.screen.columns)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in (*above, *self.screen.display)).rstrip()

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.fd)

    def _read(self) -> bool:
        if select.select([self.fd], [], [], 1.0)[0]:
            try:
                data = os.read(self.fd, 1 << 16)
            except OSError:
                return False
            self.raw += data
            self._stream.feed(data)
        return True

    def _resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def adopt() -> None:
    """Make standard input the process's controlling terminal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


Build = Callable[..., Terminal]


@pytest.fixture
def build(minidock: Any) -> Iterator[Build]:
    opened = []

    def start(*arguments: str | Path, columns: int = 80, lines: int = 24, shell: str = "") -> Terminal:
        command = [minidock.command, "build", *map(str, arguments)]
        if shell:
            command = ["/bin/sh", "-c", shell, "sh", *command]
        environment = {**minidock.environment, "TERM": "xterm-256color", "MINIDOCK_DEBUG": ""}
        terminal = Terminal(command, environment, columns=columns, lines=lines)
        opened.append(terminal)
        return terminal

    yield start
    for terminal in opened:
        terminal.close()


def normal(text: str) -> str:
    text = re.sub(r"\b\d+\.\d+s", "0.0s", text)
    text = re.sub(r"^\d+\.\d{3} ", "0.000 ", text, flags=re.MULTILINE)
    return re.sub(r"sha256:[0-9a-f]+\n?[0-9a-f]*", "DIGEST", text) + "\n"


def hold_against(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("MINIDOCK_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(normal(text))
    assert normal(text) == path.read_text()


def is_sane(terminal: Terminal) -> bool:
    """Whether the cursor shows and stands on a line of its own, and no attribute is left on."""
    cursor = terminal.screen.cursor
    return not cursor.hidden and cursor.x == 0 and not cursor.attrs.bold and cursor.attrs.fg == "default"


def test_a_build(build: Build, context: Callable[..., Path]) -> None:
    terminal = build("-t", "app", context(TWO_STAGES, {"a": "A" * 100_000}))
    assert terminal.finish() == 0
    hold_against("success", terminal.text())
    assert is_sane(terminal)


def test_a_build_that_is_all_cached(build: Build, minidock: Any, context: Callable[..., Path]) -> None:
    folder = context(TWO_STAGES, {"a": "A"})
    minidock.build(folder)
    terminal = build(folder, "--progress", "tty")
    assert terminal.finish() == 0
    hold_against("cached", terminal.text())


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (20, 8)])
def test_while_a_command_runs(build: Build, context: Callable[..., Path], columns: int, lines: int) -> None:
    terminal = build(context(TWO_STAGES, {"a": "A", "wait": ""}), columns=columns, lines=lines)
    last = "=> => # compiling file 9" if columns == 80 else " => => # compiling…"
    terminal.read_until(lambda: any(last in line for line in terminal.screen.display))
    assert terminal.screen.cursor.hidden
    hold_against(f"running-{columns}", "\n".join(line.rstrip() for line in terminal.screen.display).rstrip())
    os.write(terminal.fd, b"\x03")
    assert terminal.finish() == 130
    hold_against(f"interrupted-{columns}", terminal.text().replace("^C", ""))
    assert is_sane(terminal)


def test_an_error(build: Build, minidock: Any, context: Callable[..., Path]) -> None:
    terminal = build(context(FAILING), lines=40)
    assert terminal.finish() == 1
    hold_against("error", terminal.text())
    assert b"\x1b]52" not in terminal.raw
    assert "\u202e".encode() not in terminal.raw
    assert is_sane(terminal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_sane_terminal_and_nothing_else(
    build: Build, minidock: Any, context: Callable[..., Path], number: signal.Signals
) -> None:
    terminal = build(context(TWO_STAGES, {"a": "A", "wait": ""}))
    terminal.read_until(lambda: "compiling file 9" in terminal.text())
    os.kill(terminal.process.pid, number)
    assert terminal.finish() == 128 + number
    assert "CANCELED [build 4/4]" in terminal.text()
    assert is_sane(terminal)
    assert os.listdir(minidock.root / "tmp") == []


def test_a_build_that_is_killed_leaves_a_sane_terminal(build: Build, context: Callable[..., Path]) -> None:
    terminal = build(
        context(TWO_STAGES, {"a": "A", "wait": ""}), shell='"$@" & echo "<$!>"; wait $!; sleep 1; echo over'
    )
    terminal.read_until(lambda: "compiling file 9" in terminal.text())
    found = re.search(r"<(\d+)>", terminal.text())
    assert found
    os.kill(int(found[1]), signal.SIGKILL)
    terminal.finish()
    assert "CANCELED [build 4/4]" in terminal.text()
    assert not terminal.screen.cursor.hidden


def test_a_view_that_is_killed_ends_no_build(build: Build, minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nRUN echo begun; sleep 2\nRUN echo more\n")
    terminal = build("-t", "app", folder)
    terminal.read_until(lambda: "=> => # begun" in terminal.text())
    children = Path(f"/proc/{terminal.process.pid}/task/{terminal.process.pid}/children").read_text().split()
    (view,) = [int(pid) for pid in children if b"progress_view" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(view, signal.SIGKILL)
    assert terminal.finish() == 0
    assert not terminal.screen.cursor.hidden
    assert minidock.inspect("app")["Id"]


def test_another_size_is_used_at_once(build: Build, context: Callable[..., Path]) -> None:
    terminal = build(context(TWO_STAGES, {"a": "A", "wait": ""}), columns=60)
    terminal.read_until(lambda: "compiling file 9" in terminal.text())
    for columns in (100, 20, 80):
        terminal.resize(columns, 24)
        edge = re.compile(rf"^.{{{columns - 5}}}0\.\ds$")
        terminal.read_until(lambda edge=edge: any(edge.match(line.rstrip()) for line in terminal.screen.display))
    os.write(terminal.fd, b"\x03")
    assert terminal.finish() == 130
    assert is_sane(terminal)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": ""}])
def test_a_terminal_that_moves_no_cursor_gets_plain_lines(
    minidock: Any, context: Callable[..., Path], environment: dict[str, str]
) -> None:
    command = [minidock.command, "build", str(context("FROM busybox\n"))]
    terminal = Terminal(command, {**minidock.environment, **environment}, columns=80, lines=24)
    try:
        assert terminal.finish() == 0
    finally:
        terminal.close()
    assert b"\x1b" not in terminal.raw
    assert "#1 [internal] load build definition from Dockerfile" in terminal.text()


def test_plain_progress_loads_nothing_of_the_view(minidock: Any, context: Callable[..., Path]) -> None:
    environment = {**minidock.environment, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [minidock.command, "build", context("FROM busybox\nRUN true\n")],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "minidock.build.progress" in loaded
    for name in ("rich", "minidock.build.events", "minidock.build.rawjson", "minidock.engine.outputs"):
        assert name not in loaded


def test_rawjson(minidock: Any, context: Callable[..., Path]) -> None:
    done = minidock("build", "--progress", "rawjson", context("FROM busybox\nRUN echo hi\n"))
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == ""
    ended = [vertex for line in told for vertex in line.get("vertexes", []) if "completed" in vertex]
    assert [vertex["name"] for vertex in ended][-3:] == [
        "[1/2] FROM busybox",
        "[2/2] RUN echo hi",
        "exporting to image",
    ]
    logs = [log for line in told for log in line.get("logs", [])]
    assert "aGkK" in [log["data"] for log in logs]
