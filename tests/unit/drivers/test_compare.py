"""Two files are compared byte for byte, however the kernel cuts what it gives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from minidock.drivers import compare

SIZE = 3 << 20


@contextmanager
def folders(tmp_path: Path, one: bytes, other: bytes) -> Iterator[tuple[int, int]]:
    with ExitStack() as stack:
        fds = []
        for name, content in (("one", one), ("other", other)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_bytes(content)
            os.utime(tmp_path / name / "file", (1_500_000_000, 1_500_000_000))
            fds.append(os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY))
            stack.callback(os.close, fds[-1])
        yield fds[0], fds[1]


def same(one: int, other: int) -> bool:
    status = [os.stat("file", dir_fd=fd) for fd in (one, other)]
    return compare.same_entry(one, other, "file", *status)


@pytest.mark.parametrize("cut", [0, 1, 4097])
def test_short_reads_do_not_make_files_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int) -> None:
    """Of the second file each read gives less than was asked for."""
    content = os.urandom(SIZE)
    read = os.read
    with folders(tmp_path, content, content) as (one, other):
        inode = os.stat("file", dir_fd=other).st_ino

        def short(fd: int, size: int) -> bytes:
            return read(fd, max(1, size - cut) if os.fstat(fd).st_ino == inode else size)

        monkeypatch.setattr(os, "read", short)
        assert same(one, other)


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
def test_one_byte_makes_files_differ(tmp_path: Path, place: int) -> None:
    content = bytes(SIZE)
    with folders(tmp_path, content, content[:place] + b"x" + content[place + 1 :]) as (one, other):
        assert not same(one, other)
