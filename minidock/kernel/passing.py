"""Descriptors that are passed from process to process over a Unix socket (SCM_RIGHTS, unix(7)): for terminals only, so
that nothing else has to load sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

_INT_SIZE = 4


def socket_pair() -> tuple[int, int]:
    """Two connected sockets as descriptors, both CLOEXEC."""
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def send_fds(sock_fd: int, payload: bytes, fds: Sequence[int]) -> None:
    """Send descriptors with a payload of at least one byte over a Unix socket (SCM_RIGHTS, unix(7))."""
    sock = socket.socket(fileno=sock_fd)
    try:
        socket.send_fds(sock, [payload], list(fds))
    finally:
        sock.detach()


def recv_fds(sock_fd: int, max_fds: int, *, max_bytes: int = 4096) -> tuple[bytes, list[int]]:
    """Receive a payload and at most ``max_fds`` descriptors, which are CLOEXEC. (b"", []) at the end of the stream."""
    sock = socket.socket(fileno=sock_fd)
    try:
        # socket.recv_fds drops its flags argument: the descriptors would be inheritable.
        space = socket.CMSG_LEN(max_fds * _INT_SIZE)
        data, messages, _, _ = sock.recvmsg(max_bytes, space, socket.MSG_CMSG_CLOEXEC)
    finally:
        sock.detach()
    fds: list[int] = []
    for level, kind, content in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.extend(struct.unpack(f"{len(content) // _INT_SIZE}i", content))
    return data, fds
