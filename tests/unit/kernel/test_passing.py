"""Descriptors over a Unix socket."""

from __future__ import annotations

import os
import socket

from minidock.kernel import passing


def test_descriptors_travel_over_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader, writer = os.pipe()
        passing.send_fds(theirs.fileno(), b"pipe", [writer])
        os.close(writer)
        data, fds = passing.recv_fds(ours.fileno(), 4)
        assert data == b"pipe"
        assert len(fds) == 1
        assert not os.get_inheritable(fds[0])
        os.write(fds[0], b"x")
        assert os.read(reader, 1) == b"x"
        theirs.close()
        assert passing.recv_fds(ours.fileno(), 1) == (b"", [])
        os.close(fds[0])
        os.close(reader)


def test_a_pair_is_connected_and_not_inherited() -> None:
    ours, theirs = passing.socket_pair()
    try:
        os.write(ours, b"x")
        assert os.read(theirs, 1) == b"x"
        assert not os.get_inheritable(ours)
        assert not os.get_inheritable(theirs)
    finally:
        os.close(ours)
        os.close(theirs)
