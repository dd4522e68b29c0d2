"""Copying between descriptors and a command: every byte, both ends of input, terminals, and the command's status."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from minidock.engine.pump import Pump
from minidock.kernel import tty
from minidock.runtime.context import Stdio


class Waiter:
    def __init__(self, pid: int) -> None:
        self.pidfd = os.pidfd_open(pid)


class Started:
    """A process of the host in the place of a command in a container."""

    def __init__(self, process: subprocess.Popen[bytes], console: int = -1) -> None:
        self.process = process
        self.console = console
        self.waiter = Waiter(process.pid)

    def wait(self) -> int:
        os.close(self.waiter.pidfd)
        return self.process.wait()


def python(code: str) -> Any:
    """A ``begin`` that runs Python code on the streams that the pump gives."""

    def begin(streams: Stdio) -> Started:
        if not streams.terminal:
            return Started(
                subprocess.Popen(
                    [sys.executable, "-c", code], stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr
                )
            )
        master, slave = tty.new_pty()
        tty.set_winsize(master, *streams.winsize)
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        return Started(process, master)

    return begin


class Pipe:
    """A pipe that a thread reads to its end."""

    def __init__(self) -> None:
        self.read_end, self.fd = os.pipe()
        self.data = b""
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        while piece := os.read(self.read_end, 65536):
            self.data += piece

    def take(self) -> bytes:
        os.close(self.fd)
        self.thread.join()
        os.close(self.read_end)
        return self.data


def pump(code: str, *, stdin: int = -1, terminal: bool = False) -> tuple[int, bytes, bytes]:
    out, err = Pipe(), Pipe()
    before = len(os.listdir("/proc/self/fd"))
    try:
        status = Pump(stdin=stdin, stdout=out.fd, stderr=err.fd, terminal=terminal).run(python(code))
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        streams = out.take(), err.take()
    return (status, *streams)


def test_streams_and_status() -> None:
    code = "import sys, os; os.write(1, b'out'); os.write(2, b'err'); sys.exit(7)"
    assert pump(code) == (7, b"out", b"err")


def test_a_megabyte_comes_through_whole() -> None:
    status, out, _ = pump("import sys; sys.stdout.buffer.write(bytes(range(256)) * 8192)")
    assert (status, out) == (0, bytes(range(256)) * 8192)


def test_without_input_the_command_sees_the_end_at_once() -> None:
    assert pump("import sys; print(len(sys.stdin.read()))")[1] == b"0\n"


def test_input_is_passed_on_and_ends() -> None:
    read_end, write_end = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(write_end, b"x" * 60000), os.close(write_end)))
    thread.start()
    try:
        assert pump("import sys; print(len(sys.stdin.read()))", stdin=read_end)[1] == b"60000\n"
    finally:
        thread.join()
        os.close(read_end)


def test_input_that_is_not_read_does_not_hold_the_output_up() -> None:
    read_end, write_end = os.pipe()
    thread = threading.Thread(target=lambda: os.write(write_end, b"x" * 300000))
    thread.start()
    code = "import os, sys, time; os.write(1, b'early'); time.sleep(0.2); print(len(sys.stdin.buffer.read(300000)))"
    try:
        assert pump(code, stdin=read_end)[1] == b"early300000\n"
    finally:
        os.close(read_end)
        thread.join()
        os.close(write_end)


def test_a_command_that_closes_its_input_is_no_failure() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"x" * 1000)
    code = "import os, time; os.close(0); time.sleep(0.2); os.write(1, b'done')"
    try:
        assert pump(code, stdin=read_end)[:2] == (0, b"done")
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_child_that_keeps_the_pipe_open_is_not_waited_for() -> None:
    code = "import subprocess; subprocess.Popen(['sleep', '3'], stdin=subprocess.DEVNULL); print('x', flush=True)"
    status, out, _ = pump(code)
    assert (status, out) == (0, b"x\n")


class TestTerminal:
    def test_a_terminal_merges_the_streams(self) -> None:
        code = "import os, sys; print(os.isatty(1), flush=True); print('e', file=sys.stderr); sys.exit(3)"
        assert pump(code, terminal=True) == (3, b"True\r\ne\r\n", b"")

    def test_what_is_typed_reaches_the_command(self) -> None:
        read_end, write_end = os.pipe()
        os.write(write_end, b"hello\n")
        try:
            status, out, _ = pump("print('got ' + input())", stdin=read_end, terminal=True)
        finally:
            os.close(read_end)
            os.close(write_end)
        assert status == 0
        assert b"got hello\r\n" in out

    def test_the_callers_terminal_gives_its_size_and_gets_its_mode_back(self) -> None:
        import termios

        master, slave = tty.new_pty()
        try:
            tty.set_winsize(master, 33, 101)
            before = termios.tcgetattr(slave)
            code = "import os; print(*os.get_terminal_size(1))"
            status = Pump(stdin=slave, stdout=slave, stderr=slave, terminal=True).run(python(code))
            assert status == 0
            assert termios.tcgetattr(slave) == before
            assert b"101 33" in os.read(master, 1000)
        finally:
            os.close(slave)
            os.close(master)


def test_a_command_that_does_not_begin_leaves_nothing_open() -> None:
    def begin(_: Stdio) -> Any:
        raise OSError("no")

    before = len(os.listdir("/proc/self/fd"))
    for terminal in (False, True):
        with pytest.raises(OSError, match="no"):
            Pump(stdin=0, stdout=1, stderr=2, terminal=terminal).run(begin)
    assert len(os.listdir("/proc/self/fd")) == before
