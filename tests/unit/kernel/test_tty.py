"""Pseudo-terminals."""

from __future__ import annotations

import errno
import os
import termios

import pytest

from minidock.kernel import process, tty


def test_pair_speaks_and_is_cloexec() -> None:
    master, slave = tty.new_pty()
    assert os.isatty(slave)
    assert not os.get_inheritable(master)
    assert not os.get_inheritable(slave)
    assert os.ttyname(slave) == f"/dev/pts/{tty.pty_number(master)}"
    os.write(slave, b"line\n")
    assert os.read(master, 100) == b"line\r\n"
    os.close(slave)
    with pytest.raises(OSError, match="Input/output") as caught:
        os.read(master, 100)
    assert caught.value.errno == errno.EIO
    os.close(master)


def test_window_size() -> None:
    master, slave = tty.new_pty()
    tty.set_winsize(master, 33, 121)
    assert tty.get_winsize(slave) == (33, 121)
    os.close(slave)
    os.close(master)
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        tty.get_winsize(reader)
    os.close(reader)
    os.close(writer)


def test_raw_mode_and_back() -> None:
    master, slave = tty.new_pty()
    before = termios.tcgetattr(slave)
    with tty.raw_mode(slave):
        os.write(slave, b"line\n")
        assert os.read(master, 100) == b"line\n"
        os.write(master, b"\x03\r")
        assert os.read(slave, 100) == b"\x03\r"
    assert termios.tcgetattr(slave) == before
    with pytest.raises(RuntimeError, match="inside"), tty.raw_mode(slave):
        raise RuntimeError("inside")
    assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)


def test_controlling_terminal_of_a_new_session() -> None:
    master, slave = tty.new_pty()

    def child() -> int:
        process.setsid()
        tty.set_controlling(slave)
        with open("/dev/tty", "rb+", buffering=0) as terminal:
            terminal.write(b"mine")
        return 0 if os.tcgetpgrp(slave) == os.getpid() else 3

    with process.spawn(child) as spawned:
        assert spawned.wait() == 0
    assert os.read(master, 100) == b"mine"
    os.close(slave)
    os.close(master)


def test_no_descriptor_is_left_when_there_is_no_ptmx(tmp_path: object) -> None:
    directory = os.open(str(tmp_path), os.O_PATH | os.O_CLOEXEC)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        tty.new_pty(directory)
    assert os.listdir("/proc/self/fd") == before
    os.close(directory)
