"""A container's output on disk: ``log`` holds the raw bytes, ``log.index`` one record for each piece.

A record is 24 bytes, little-endian: offset (u64), time in nanoseconds since the epoch (u64), length (u32), stream (u32:
1 standard output or the terminal, 2 standard error). The bytes are written first, then the record: what SIGKILL or a
power cut leaves is bytes without a record, which readers never see and the next writer leaves where they are, or a
part of a record, which the next writer cuts off. A reader passes over records that point beyond the bytes there are.
"""

from __future__ import annotations

import os
import struct
import time

# The typing module would double what a small monitor takes of memory.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORD = struct.Struct("<QQII")
STDOUT = 1
STDERR = 2

_PIECE = 1 << 20
_POLL = 0.1


def log_path(directory: str) -> str:
    return f"{directory}/log"


def index_path(directory: str) -> str:
    return f"{directory}/log.index"


class LogWriter:
    """Appends to a container's log. ``count`` is the number of records, ``end`` the size of the bytes.

    A full disk loses output and never stops the container: ``append`` then says False, and ``lost`` counts the bytes.
    """

    __slots__ = ("count", "data_fd", "end", "index_fd", "lost")

    def __init__(self, data_fd: int, index_fd: int) -> None:
        self.data_fd = data_fd
        self.index_fd = index_fd
        self.lost = 0
        self.end = os.fstat(data_fd).st_size
        size = os.fstat(index_fd).st_size
        self.count = size // RECORD.size
        if size % RECORD.size:
            os.ftruncate(index_fd, self.count * RECORD.size)

    @classmethod
    def open(cls, directory: str) -> LogWriter:
        """Open, or begin, the log in a container's directory. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        data_fd = os.open(log_path(directory), flags, 0o600)
        try:
            return cls(data_fd, os.open(index_path(directory), flags, 0o600))
        except BaseException:
            os.close(data_fd)
            raise

    def append(self, stream: int, data: memoryview) -> bool:
        """Write one piece; True when it is on record, otherwise nothing of it is."""
        size = len(data)
        try:
            written = os.write(self.data_fd, data)
            if written != size:
                os.ftruncate(self.data_fd, self.end)
                self.lost += size
                return False
            # Where the bytes really are: somebody may have cut the log off by hand.
            self.end = os.lseek(self.data_fd, 0, os.SEEK_CUR) - size
            record = RECORD.pack(self.end, time.time_ns(), size, stream)
            if os.write(self.index_fd, record) != RECORD.size:
                os.ftruncate(self.index_fd, self.count * RECORD.size)
                os.ftruncate(self.data_fd, self.end)
                self.lost += size
                return False
        except OSError:
            self.lost += size
            self.end = os.fstat(self.data_fd).st_size
            return False
        self.end += size
        self.count += 1
        return True

    def record(self, number: int) -> tuple[int, int, int, int]:
        """The record of that number: offset, time, length, stream; of no length when it, or its bytes, were cut off.

        Raises OSError.
        """
        data = os.pread(self.index_fd, RECORD.size, number * RECORD.size)
        if len(data) == RECORD.size:
            offset, at, length, stream = RECORD.unpack(data)
            if offset + length <= os.fstat(self.data_fd).st_size:
                return offset, at, length, stream
        return 0, 0, 0, STDOUT

    def close(self) -> None:
        os.close(self.data_fd)
        os.close(self.index_fd)


def read(
    directory: str,
    *,
    tail: int = -1,
    since: int = 0,
    until: int = 0,
    follow: bool = False,
    timestamps: bool = False,
    running: Callable[[], bool] | None = None,
) -> Iterator[tuple[int, int, bytes]]:
    """The output as (stream, nanoseconds since the epoch, bytes), in the order in which it came.

    ``tail`` is the number of lines from the end, -1 for all; ``since`` and ``until`` are times, 0 for no bound. With
    ``follow`` it goes on until ``running`` says False. With ``timestamps`` each line is one item that bears its time
    (RFC 3339, UTC, nanoseconds) in front; a line's time is that of its first byte. A log that is missing is empty.
    Raises OSError.
    """
    try:
        data_fd = os.open(log_path(directory), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        index_fd = os.open(index_path(directory), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        os.close(data_fd)
        return
    try:
        log = _Reader(data_fd, index_fd, since=since, until=until)
        pieces = log.pieces(tail=tail, running=running if follow else None)
        yield from _stamped(pieces) if timestamps else pieces
    finally:
        os.close(data_fd)
        os.close(index_fd)


def format_time(nanoseconds: int) -> str:
    """RFC 3339 in UTC with nine digits of fraction, as docker writes it."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


class _Reader:
    __slots__ = ("data_fd", "index_fd", "since", "until")

    def __init__(self, data_fd: int, index_fd: int, *, since: int, until: int) -> None:
        self.data_fd = data_fd
        self.index_fd = index_fd
        self.since = since
        self.until = until

    def pieces(self, *, tail: int, running: Callable[[], bool] | None) -> Iterator[tuple[int, int, bytes]]:
        number, skip = self._start(tail) if tail >= 0 else (0, 0)
        last_round = running is None
        while True:
            count = os.fstat(self.index_fd).st_size // RECORD.size
            while number < count:
                for stream, at, data in self._record(number):
                    yield stream, at, data[skip:]
                    skip = 0
                number += 1
            if last_round:
                return
            if running is not None and not running():
                # One more look: what was written before the container's end may have come since the last one.
                last_round = True
                continue
            time.sleep(_POLL)

    def _record(self, number: int, *, piece: int = _PIECE) -> Iterator[tuple[int, int, bytes]]:
        """The bytes of a record in pieces; nothing if it is outside of the times, or damaged."""
        record = os.pread(self.index_fd, RECORD.size, number * RECORD.size)
        if len(record) != RECORD.size:
            return
        offset, at, length, stream = RECORD.unpack(record)
        if stream not in {STDOUT, STDERR} or offset + length > os.fstat(self.data_fd).st_size:
            return
        if at < self.since or (self.until and at > self.until):
            return
        while length:
            data = os.pread(self.data_fd, min(length, piece), offset)
            if not data:
                return
            yield stream, at, data
            offset += len(data)
            length -= len(data)

    def _start(self, tail: int) -> tuple[int, int]:
        """Where the last ``tail`` lines begin: the record's number, and how many of its bytes to pass over.

        Lines are counted over the bytes of both streams as they lie in the log; a last line without an end counts.
        """
        number = os.fstat(self.index_fd).st_size // RECORD.size
        if tail == 0:
            return number, 0
        wanted, at_end = tail, True
        while number > 0:
            number -= 1
            data = b"".join(piece for _, _, piece in self._record(number))
            position = len(data)
            if at_end and data:
                at_end = False
                if data.endswith(b"\n"):
                    position -= 1
            while (position := data.rfind(b"\n", 0, position)) >= 0:
                wanted -= 1
                if wanted == 0:
                    return number, position + 1
        return 0, 0


def _stamped(pieces: Iterator[tuple[int, int, bytes]]) -> Iterator[tuple[int, int, bytes]]:
    """Cut pieces into lines, each with its time in front; what has no end comes when its stream is over."""
    rests: dict[int, tuple[int, bytes]] = {}
    for stream, at, data in pieces:
        begun, rest = rests.pop(stream, (at, b""))
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield stream, begun, format_time(begun).encode() + b" " + line + b"\n"
            begun = at
        if rest:
            rests[stream] = (begun, rest)
    for stream, (begun, rest) in rests.items():
        yield stream, begun, format_time(begun).encode() + b" " + rest
