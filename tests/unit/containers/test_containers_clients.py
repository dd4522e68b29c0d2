"""The monitor's side of a connection: what a client gets, however it reads."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minidock.containers import frames
from minidock.containers.clients import Client
from minidock.containers.logs import LogWriter


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogWriter]:
    made = LogWriter.open(str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., tuple[Client, socket.socket]]]:
    """A client of the monitor, and the socket's other end, which the test reads."""
    pairs: list[tuple[socket.socket, socket.socket]] = []

    def make(**options: int) -> tuple[Client, socket.socket]:
        ours, theirs = socket.socketpair()
        pairs.append((ours, theirs))
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.setblocking(False)
        theirs.setblocking(False)
        return Client(ours.fileno(), attached=True, **options), theirs

    yield make
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def write(log: LogWriter, client: Client, stream: int, data: bytes) -> bool:
    """What the relay does with each piece of output."""
    recorded = log.append(stream, memoryview(data))
    return client.deliver(frames.HEADER.pack(stream, len(data)), memoryview(data), log, recorded=recorded)


def take(theirs: socket.socket, reader: frames.Reader) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while True:
        try:
            data = theirs.recv(1000)
        except BlockingIOError:
            return found
        if not data:
            return found
        found += reader.feed(data)


def test_a_client_that_lags_gets_every_byte_from_the_log(
    log: LogWriter, connect: Callable[..., tuple[Client, socket.socket]]
) -> None:
    client, theirs = connect()
    sent = [(1 + n % 2, os.urandom(1 + n * 37 % 5000)) for n in range(300)]
    for stream, data in sent:
        assert write(log, client, stream, data)
    assert client.wants_to_send(log.count)
    assert not client.extra, "what a client has not taken is not kept in memory"
    client.final = frames.frame(frames.EXIT, b"end")
    reader, got = frames.Reader(limit=1 << 20), []
    alive = True
    while alive:
        alive = client.pump(log)
        got += take(theirs, reader)
    assert got == [*sent, (frames.EXIT, b"end")]


def test_a_client_begins_where_it_attached(
    log: LogWriter, connect: Callable[..., tuple[Client, socket.socket]]
) -> None:
    log.append(1, memoryview(b"before"))
    client, theirs = connect(number=log.count)
    write(log, client, 1, b"after")
    assert take(theirs, frames.Reader(limit=100)) == [(1, b"after")]
    assert not client.wants_to_send(log.count)


def test_replies_come_between_frames_and_never_inside_one(
    log: LogWriter, connect: Callable[..., tuple[Client, socket.socket]]
) -> None:
    client, theirs = connect()
    big = b"x" * 100_000
    write(log, client, 1, big)
    assert client.sent
    client.extra += frames.frame(frames.REPLY, b"answer")
    write(log, client, 2, b"more")
    reader, got = frames.Reader(limit=1 << 20), []
    while client.wants_to_send(log.count):
        assert client.pump(log)
        got += take(theirs, reader)
    got += take(theirs, reader)
    assert got == [(1, big), (frames.REPLY, b"answer"), (2, b"more")]


def test_what_a_full_disk_lost_still_reaches_who_keeps_up(
    log: LogWriter, connect: Callable[..., tuple[Client, socket.socket]]
) -> None:
    client, theirs = connect()
    lost = b"y" * 50_000
    assert client.deliver(frames.HEADER.pack(1, len(lost)), memoryview(lost), log, recorded=False)
    write(log, client, 1, b"kept")
    reader, got = frames.Reader(limit=1 << 20), []
    while client.wants_to_send(log.count):
        assert client.pump(log)
        got += take(theirs, reader)
    assert got == [(1, lost), (1, b"kept")]


def test_a_client_that_is_gone_or_talks_nonsense_is_dropped(
    log: LogWriter, connect: Callable[..., tuple[Client, socket.socket]]
) -> None:
    client, theirs = connect()
    assert client.receive() == []
    theirs.send(frames.frame(frames.STDIN, b"hi"))
    assert client.receive() == [(frames.STDIN, b"hi")]
    theirs.send(frames.HEADER.pack(frames.STDIN, 1 << 30))
    assert client.receive() is None
    gone, other = connect()
    other.close()
    assert gone.receive() is None
    assert not write(log, gone, 1, b"x")
