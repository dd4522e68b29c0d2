"""What a monitor and its clients say to each other over the socket ``attach``.

A frame is an 8-byte header (the type, three zero bytes, the payload's length as a big-endian u32; docker's attach
stream has the same shape and the same types 0 to 2) and the payload.

From a client:

- ``ATTACH``: an empty payload; from now on the client gets the container's output.
- ``STDIN``: bytes for the container, at most ``MAX_STDIN`` in a frame and ``WINDOW`` frames without a ``CREDIT``, so
  that a container that does not read never keeps the monitor from seeing what comes behind (signals, sizes).
- ``STDIN_EOF``: nothing more comes.
- ``RESIZE``: rows and columns, two big-endian u16.
- ``REQUEST``: a word, and for ``signal`` a number: ``signal 15``, ``pause``, ``unpause``. ``REPLY`` answers: empty for
  success, otherwise a sentence.

From the monitor: ``STDOUT``, ``STDERR``, ``CREDIT`` (an empty payload: one more STDIN frame may come), ``REPLY``, and
last of all ``EXIT``: the exit status as a big-endian u32, then the error's sentence or nothing.
"""

from __future__ import annotations

import struct

# The typing module would double what a small monitor takes of memory.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN = 0
STDOUT = 1
STDERR = 2
EXIT = 3
STDIN_EOF = 4
RESIZE = 5
ATTACH = 6
CREDIT = 7
REQUEST = 8
REPLY = 9

MAX_STDIN = 65536
WINDOW = 4
MAX_CONTROL = 4096

HEADER = struct.Struct(">B3xI")
SIZE = struct.Struct(">HH")
STATUS = struct.Struct(">I")


def frame(kind: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(payload)) + payload


class Reader:
    """Cuts a byte stream into frames. ``limit`` is the largest payload that is let in."""

    __slots__ = ("_buffer", "limit")

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that ``data`` completes, as (type, payload). Raises ValueError for a payload above the limit."""
        buffer = self._buffer
        buffer += data
        position = 0
        try:
            while len(buffer) - position >= HEADER.size:
                kind, length = HEADER.unpack_from(buffer, position)
                if length > self.limit:
                    raise ValueError(f"a frame of {length} bytes is above the limit of {self.limit}")
                end = position + HEADER.size + length
                if len(buffer) < end:
                    return
                payload = bytes(buffer[position + HEADER.size : end])
                position = end
                yield kind, payload
        finally:
            del buffer[:position]
