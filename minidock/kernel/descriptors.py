"""Descriptors that another process makes, because only it can stand where they are made."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from minidock.kernel import process

# SCM_MAX_FD of include/net/scm.h: how many one message carries.
_PER_MESSAGE = 253


def from_child(make: Callable[[], Sequence[int]], *, flags: int = 0) -> list[int]:
    """Run ``make`` in a child, born in new namespaces of the CLONE_NEW* kinds in ``flags``, and take the descriptors
    that it returns, in their order; they are CLOEXEC.

    An OSError of ``make`` is raised here with its errno, text and path; then nothing stays open. Raises
    OSError(ECHILD) when the child dies otherwise.
    """
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:

        def child() -> int:
            try:
                made = make()
                for start in range(0, len(made), _PER_MESSAGE):
                    process.send_fds(theirs.fileno(), b"more", made[start : start + _PER_MESSAGE])
                os.write(theirs.fileno(), b"done")
            except OSError as error:
                process.send_failure(theirs.fileno(), process.failure_of(error, "make descriptors"))
                return 1
            return 0

        with process.spawn(child, flags=flags) as helper:
            theirs.close()
            data, made = _receive(ours.fileno())
            helper.wait()
    if data == b"done":
        return made
    for fd in made:
        os.close(fd)
    failure = process.parse_failure(data)
    raise failure.error() if failure else OSError(errno.ECHILD, "the process that makes the descriptors died")


def _receive(sock_fd: int) -> tuple[bytes, list[int]]:
    """The last message, empty when the sender died without one, and all descriptors."""
    received: list[int] = []
    while True:
        data, fds = process.recv_fds(sock_fd, _PER_MESSAGE)
        received += fds
        if data != b"more":
            return data, received
