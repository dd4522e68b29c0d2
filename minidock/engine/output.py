"""Where what a container writes goes when a program runs it."""

from __future__ import annotations

import os


class Output:
    """Where a verb's output goes: the descriptor that the caller gave, or a buffer that is read afterwards."""

    __slots__ = ("_own", "fd")

    def __init__(self, fd: int | None) -> None:
        self._own = fd is None
        self.fd = os.memfd_create("minidock-output", os.MFD_CLOEXEC) if fd is None else fd

    def take(self) -> bytes:
        """What was captured; empty when the caller gave a descriptor."""
        if not self._own:
            return b""
        size = os.fstat(self.fd).st_size
        return os.pread(self.fd, size, 0)

    def close(self) -> None:
        if self._own:
            os.close(self.fd)
