"""What the relay answers to requests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.containers import frames
from minidock.containers.clients import Client
from minidock.containers.logs import LogWriter
from minidock.containers.relay import Relay


class Control:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def signal(self, number: int) -> None:
        self.asked.append(f"signal {number}")

    def pause(self) -> None:
        self.asked.append("pause")

    def unpause(self) -> None:
        self.asked.append("unpause")

    def resize(self, rows: int, columns: int) -> None:
        self.asked.append(f"resize {rows} {columns}")


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Any]:
    log = LogWriter.open(str(tmp_path))
    yield Relay(pidfd=-1, log=log, outputs={}, stdin=-1, listener=-1, control=Control(), terminal=False)
    log.close()


def ask(relay: Any, words: bytes) -> bytes:
    fd = os.open(os.devnull, os.O_RDWR)
    client = Client(fd)
    try:
        assert relay._handle(client, frames.REQUEST, words)
    finally:
        os.close(fd)
    [(kind, answer)] = frames.Reader(limit=100).feed(bytes(client.extra))
    assert kind == frames.REPLY
    return answer


def test_requests_reach_the_container(relay: Any) -> None:
    assert (ask(relay, b"signal 15"), ask(relay, b"pause")) == (b"", b"")
    assert relay.control.asked == ["signal 15", "pause"]


@pytest.mark.parametrize("words", [b"signal 65", b"signal 99999999999999999999999", b"signal", b"dance", b""])
def test_nonsense_is_answered(relay: Any, words: bytes) -> None:
    assert b"does not know" in ask(relay, words)
    assert relay.control.asked == []


@pytest.mark.parametrize("words", [b"signal 9", b"pause", b"unpause"])
def test_after_the_end_the_record_is_final(relay: Any, words: bytes) -> None:
    """A pause would make an exited container a paused one, whose monitor seems to have been killed."""
    relay.ended = True
    assert ask(relay, words) == b"it has ended"
    assert relay.control.asked == []
