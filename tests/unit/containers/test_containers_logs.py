"""The log on disk: raw bytes and an index of records."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidock.containers import logs
from minidock.containers.logs import RECORD, LogWriter


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    made = LogWriter.open(str(tmp_path))
    yield made
    made.close()


def put(writer: LogWriter, *pieces: tuple[int, bytes]) -> None:
    for stream, data in pieces:
        assert writer.append(stream, memoryview(data))


def read(directory: Path, **options: object) -> list[tuple[int, bytes]]:
    return [(stream, data) for stream, _, data in logs.read(str(directory), **options)]  # type: ignore[arg-type]


def test_streams_come_back_apart_and_in_order(tmp_path: Path, writer: LogWriter) -> None:
    put(writer, (1, b"out\n"), (2, b"err\n"), (1, b"\x00\xff"))
    assert (tmp_path / "log").read_bytes() == b"out\nerr\n\x00\xff"
    assert (tmp_path / "log.index").stat().st_size == 3 * 24
    assert read(tmp_path) == [(1, b"out\n"), (2, b"err\n"), (1, b"\x00\xff")]


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path) == []


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(0, b""), (1, b"four"), (2, b"three\nfour"), (3, b"two\nthree\nfour"), (99, b"one\ntwo\nthree\nfour")],
)
def test_tail_counts_lines_across_records(tmp_path: Path, writer: LogWriter, tail: int, expected: bytes) -> None:
    put(writer, (1, b"one\ntw"), (1, b"o\nthr"), (2, b"ee\nfo"), (1, b"ur"))
    assert b"".join(data for _, data in read(tmp_path, tail=tail)) == expected


def test_tail_of_a_log_that_ends_with_a_line_end(tmp_path: Path, writer: LogWriter) -> None:
    put(writer, (1, b"a\nb\nc\n"), (1, b"\n"))
    assert b"".join(data for _, data in read(tmp_path, tail=2)) == b"c\n\n"


def test_since_and_until(tmp_path: Path, writer: LogWriter) -> None:
    put(writer, (1, b"early\n"))
    time.sleep(0.01)
    middle = time.time_ns()
    put(writer, (1, b"late\n"))
    assert read(tmp_path, since=middle) == [(1, b"late\n")]
    assert read(tmp_path, until=middle) == [(1, b"early\n")]


def test_timestamps_begin_each_line_even_when_it_came_in_pieces(tmp_path: Path, writer: LogWriter) -> None:
    put(writer, (1, b"he"), (2, b"err\n"), (1, b"llo\nrest"))
    found = read(tmp_path, timestamps=True)
    assert [(stream, data.split(b" ", 1)[1]) for stream, data in found] == [
        (2, b"err\n"),
        (1, b"hello\n"),
        (1, b"rest"),
    ]
    first = found[1][1].split(b" ")[0]
    assert len(first) == len(b"2006-01-02T15:04:05.999999999Z")
    assert first.endswith(b"Z")


def test_format_time() -> None:
    assert logs.format_time(1_000_000_001) == "1970-01-01T00:00:01.000000001Z"


def test_follow_sees_what_is_written_until_the_end(tmp_path: Path, writer: LogWriter) -> None:
    put(writer, (1, b"a"))
    rounds = iter([True, False])

    def running() -> bool:
        put(writer, (1, b"b"))
        return next(rounds)

    assert b"".join(data for _, data in read(tmp_path, follow=True, running=running)) == b"abb"


def test_what_a_killed_writer_left_is_passed_over(tmp_path: Path) -> None:
    first = LogWriter.open(str(tmp_path))
    put(first, (1, b"one"))
    first.close()
    with open(tmp_path / "log", "ab") as log:
        log.write(b"bytes without a record")
    with open(tmp_path / "log.index", "ab") as index:
        index.write(RECORD.pack(3, 0, 5, 1)[:10])
    assert read(tmp_path) == [(1, b"one")]
    again = LogWriter.open(str(tmp_path))
    put(again, (2, b"two"))
    again.close()
    assert read(tmp_path) == [(1, b"one"), (2, b"two")]
    assert (tmp_path / "log.index").stat().st_size == 2 * 24


def test_damaged_records_are_passed_over(tmp_path: Path, writer: LogWriter) -> None:
    put(writer, (1, b"good"))
    os.write(writer.index_fd, RECORD.pack(1 << 40, 1, 5, 1) + RECORD.pack(0, 1, 4, 7))
    assert read(tmp_path) == [(1, b"good")]


def test_a_full_disk_loses_the_piece_and_nothing_else(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_RDWR)
    index = os.open(tmp_path / "log.index", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    writer = LogWriter(full, index)
    assert not writer.append(1, memoryview(b"lost"))
    assert (writer.lost, writer.count, os.fstat(index).st_size) == (4, 0, 0)
    writer.close()


def test_a_log_that_was_cut_off_goes_on_where_it_is(tmp_path: Path) -> None:
    writer = LogWriter.open(str(tmp_path))
    writer.append(1, memoryview(b"before, and long"))
    os.truncate(tmp_path / "log", 0)
    assert writer.append(1, memoryview(b"after"))
    assert writer.record(0)[2] == 0
    offset, _, length, stream = writer.record(1)
    assert (offset, length, stream) == (0, 5, 1)
    assert [piece[2] for piece in logs.read(str(tmp_path))] == [b"after"]
    writer.close()
