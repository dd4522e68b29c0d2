"""A real terminal: the command is driven through a pty, as a person's shell would."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest


class Terminal:
    """The command with a pty of its own as its controlling terminal."""

    def __init__(self, minidock, *arguments: str, rows: int = 24, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [minidock.command, *arguments],
            env=minidock.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - there is one thread
        )
        self.slave = slave
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read_until(self, text: str, seconds: float = 10) -> str:
        deadline = time.monotonic() + seconds
        while text.encode() not in self.seen:
            ready = select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"waited in vain for {text!r}, saw {self.seen!r}"
            self.seen += os.read(self.master, 65536)
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode()

    def wait(self) -> int:
        return self.process.wait(timeout=15)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(minidock) -> Iterator:
    made: list[Terminal] = []

    def start(*arguments: str, **size: int) -> Terminal:
        made.append(Terminal(minidock, *arguments, **size))
        return made[-1]

    yield start
    for item in made:
        item.close()


RUN = ("run", "--rm", "-it", "--network", "none", "busybox")


def test_a_shell_has_a_terminal_of_the_right_size(terminal) -> None:
    shell = terminal(*RUN, "sh", rows=33, columns=111)
    shell.read_until("/ # ")
    shell.send("stty size; tty; ls -l /dev/console | cut -c1\n")
    assert "33 111" in shell.read_until("/dev/pts/0")
    shell.read_until("c\r\n")
    shell.send("exit 3\n")
    assert shell.wait() == 3


def test_the_terminal_is_restored(terminal) -> None:
    shell = terminal(*RUN, "sh", "-c", "echo ready; sleep 0.2")
    shell.read_until("ready")
    shell.wait()
    assert termios.tcgetattr(shell.slave) == shell.before


def test_resizing_reaches_the_command(terminal) -> None:
    shell = terminal(*RUN, "sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done")
    shell.read_until("ready")
    shell.resize(40, 120)
    shell.process.send_signal(signal.SIGWINCH)
    shell.read_until("40 120")


def test_ctrl_c_goes_to_the_command_alone(terminal) -> None:
    shell = terminal(*RUN, "sh")
    shell.read_until("/ # ")
    shell.send("sleep 1000\n")
    time.sleep(0.3)
    shell.send("\x03")
    shell.read_until("/ # ")
    shell.send("exit\n")
    assert shell.wait() == 130


def test_exec_with_a_terminal(minidock, terminal) -> None:
    minidock("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    shell = terminal("exec", "-it", "one", "sh", rows=20, columns=60)
    shell.read_until("/ # ")
    shell.send("stty size; tty; exit 4\n")
    shell.read_until("20 60")
    assert shell.wait() == 4
    assert termios.tcgetattr(shell.slave) == shell.before
