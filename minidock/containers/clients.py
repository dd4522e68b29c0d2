"""The monitor's side of the attach socket: a slow client never slows the container and never loses a byte.

What a client has not taken yet is not queued: it lies in the log. A client that keeps up is served straight from what
was just read; one that does not remembers the number of its next record and how much of it is sent, and is served from
the log when its socket has room. Imports nothing beyond the interpreter's core: a detached monitor has to stay small.
"""

from __future__ import annotations

import errno
import os

from minidock.containers import frames

# The typing module would double what a small monitor takes of memory.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from minidock.containers.logs import LogWriter

_BURST = 1 << 20
_PIECE = 1 << 17
_MAX_EXTRA = 1 << 20


class Client:
    """One connection. ``once`` marks the starter's: when its input ends or it goes, the container's input ends."""

    __slots__ = ("attached", "extra", "fd", "final", "number", "once", "outstanding", "reader", "sent")

    def __init__(self, fd: int, *, attached: bool = False, number: int = 0, once: bool = False) -> None:
        self.fd = fd
        self.attached = attached
        self.number = number
        self.once = once
        self.sent = 0
        self.outstanding = 0
        self.extra = bytearray()
        self.final = b""
        self.reader = frames.Reader(limit=frames.MAX_STDIN)

    def wants_to_send(self, count: int) -> bool:
        return bool(self.sent or self.extra or self.final or (self.attached and self.number < count))

    def receive(self) -> list[tuple[int, bytes]] | None:
        """The frames that have come; None when the client is gone or talks nonsense."""
        try:
            data = os.read(self.fd, _PIECE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        try:
            return list(self.reader.feed(data))
        except ValueError:
            return None

    def deliver(self, header: bytes, data: memoryview, log: LogWriter, *, recorded: bool) -> bool:
        """Send what has just been read, if the client is up to date; False when it is gone.

        ``recorded`` says that it is the log's last record. What a full disk kept out of the log reaches only those
        that keep up.
        """
        if not self.attached or self.sent or self.extra or self.number != log.count - recorded:
            return True
        total = len(header) + len(data)
        try:
            written = os.writev(self.fd, (header, data))
        except BlockingIOError:
            written = 0
        except OSError:
            return False
        if not recorded:
            self.extra += (header + data)[written:]
        elif written == total:
            self.number += 1
        else:
            self.sent = written
        return len(self.extra) <= _MAX_EXTRA

    def pump(self, log: LogWriter) -> bool:
        """Send what is due, as far as the socket takes it; False when the client is gone or has got all, EXIT last."""
        budget = _BURST
        try:
            while budget > 0:
                if self.extra and not self.sent:
                    written = os.write(self.fd, bytes(self.extra[:_PIECE]))
                    del self.extra[:written]
                elif self.attached and self.number < log.count:
                    written = self._send_record(log)
                elif self.final:
                    written = os.write(self.fd, self.final)
                    self.final = self.final[written:]
                    if not self.final:
                        return False
                else:
                    return True
                budget -= written
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _send_record(self, log: LogWriter) -> int:
        offset, _, length, stream = log.record(self.number)
        size = frames.HEADER.size
        if self.sent >= size + length:
            raise OSError(errno.EIO, "the log was cut off in the middle of what was being sent")
        if self.sent < size:
            data = frames.HEADER.pack(stream, length)[self.sent :] + os.pread(log.data_fd, min(length, _PIECE), offset)
        else:
            done = self.sent - size
            data = os.pread(log.data_fd, min(length - done, _PIECE), offset + done)
        written = os.write(self.fd, data)
        self.sent += written
        if self.sent == size + length:
            self.sent = 0
            self.number += 1
        return written

    def close(self) -> None:
        os.close(self.fd)
