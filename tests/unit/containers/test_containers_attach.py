"""The client's side of an attachment, against a monitor that the test plays itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.containers import frames
from minidock.containers.attach import Outcome, Session, exit_status


@pytest.fixture
def play() -> Iterator[Callable[..., Play]]:
    """Make plays; all their descriptors are closed at the end."""
    made: list[Play] = []

    def make(stdin: bytes, **options: Any) -> Play:
        made.append(Play(stdin, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Play:
    """A session on one end of a socket pair; the other end is the test's."""

    def __init__(self, stdin: bytes, *, terminal: bool = False, keys: bytes = b"\x10\x11") -> None:
        self.ours, theirs = socket.socketpair()
        self.connection = theirs.detach()
        self.stdin, write_end = os.pipe()
        os.write(write_end, stdin)
        os.close(write_end)
        self.out, self.err = os.memfd_create("out"), os.memfd_create("err")
        self.session = Session(
            self.connection,
            stdin=self.stdin,
            stdout=self.out,
            stderr=self.err,
            terminal=terminal,
            proxy=False,
            detach_keys=keys,
        )

    def say(self, kind: int, payload: bytes = b"") -> None:
        self.ours.sendall(frames.frame(kind, payload))

    def heard(self) -> list[tuple[int, bytes]]:
        self.ours.setblocking(False)
        return list(frames.Reader(limit=1 << 20).feed(self.ours.recv(1 << 20)))

    def close(self) -> None:
        self.ours.close()
        for fd in (self.connection, self.stdin, self.out, self.err):
            os.close(fd)

    @staticmethod
    def text(fd: int) -> bytes:
        return Path(f"/proc/self/fd/{fd}").read_bytes()


def test_output_goes_to_the_given_descriptors_and_the_exit_ends_it(play: Callable[..., Play]) -> None:
    one = play(b"")
    one.say(frames.STDOUT, b"out")
    one.say(frames.STDERR, b"err")
    one.say(frames.STDOUT, b"put")
    one.say(frames.EXIT, frames.STATUS.pack(42) + b"why")
    assert one.session.run() == Outcome(42)
    assert (one.text(one.out), one.text(one.err)) == (b"output", b"err")


def test_a_monitor_that_vanishes_is_a_loss(play: Callable[..., Play]) -> None:
    one = play(b"")
    one.say(frames.STDOUT, b"out")
    one.ours.close()
    assert one.session.run() == Outcome(None, lost=True)
    assert one.text(one.out) == b"out"


def test_input_keeps_to_its_window(play: Callable[..., Play]) -> None:
    """After as many frames as the window has nothing is read any more; a credit makes room for one."""
    one = play(b"x" * 10)
    for _ in range(frames.WINDOW):
        one.session._window -= 1
    one.say(frames.EXIT, frames.STATUS.pack(0))
    assert one.session.run() == Outcome(0)
    with pytest.raises(BlockingIOError):
        one.heard()
    again = play(b"x" * 10)
    again.session._window = 1
    again.say(frames.CREDIT)
    again.say(frames.EXIT, frames.STATUS.pack(0))
    assert again.session.run() == Outcome(0)
    assert again.heard()[0] == (frames.STDIN, b"x" * 10)


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        (b"ab\x10\x11cd", b"ab", True),
        (b"a\x10b\x10\x10c\x11", b"a\x10b\x10\x10c\x11", False),
        (b"\x10\x10\x11", b"\x10", True),
        (b"plain", b"plain", False),
    ],
)
def test_detach_keys(play: Callable[..., Play], typed: bytes, passed: bytes, detached: bool) -> None:
    one = play(b"", terminal=True)
    data, found = one.session._filter_keys(typed)
    assert (data, found) == (passed, detached)


def test_detaching_leaves_without_a_status(play: Callable[..., Play]) -> None:
    one = play(b"ls\n\x10\x11", terminal=True)
    assert one.session.run() == Outcome(None, detached=True)
    assert one.heard() == [(frames.STDIN, b"ls\n")]


def test_without_a_terminal_the_keys_are_data(play: Callable[..., Play]) -> None:
    one = play(b"\x10\x11")
    read = one.session
    assert not read._take_input()
    assert one.heard() == [(frames.STDIN, b"\x10\x11")]


def test_exit_status_gives_up_after_its_time(play: Callable[..., Play]) -> None:
    one = play(b"")
    assert exit_status(one.connection, timeout=0.01) == -1
    one.say(frames.EXIT, frames.STATUS.pack(3))
    assert exit_status(one.connection, timeout=5) == 3
