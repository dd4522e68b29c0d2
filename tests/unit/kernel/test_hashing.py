"""Hashing beside the caller gives the digest that hashing in one go gives."""

from __future__ import annotations

import _thread
import hashlib
import random

import pytest

from minidock.kernel.hashing import Hasher


def test_pieces_of_any_size() -> None:
    random_ = random.Random(1)
    hasher, whole = Hasher(), bytearray()
    for size in (0, 1, 1 << 17, 1 << 18, 1 << 20, 5, 3_000_001, 1 << 18, 0):
        piece = random_.randbytes(size)
        hasher.update(piece)
        whole += piece
    assert hasher.hexdigest() == hashlib.sha256(whole).hexdigest()
    assert hasher.digest() == hashlib.sha256(whole).digest()


def test_two_buffers_are_filled_in_turn() -> None:
    hasher, expected = Hasher(), hashlib.sha256()
    buffers = [bytearray(1 << 20), bytearray(1 << 20)]
    for number in range(40):
        buffer = buffers[number % 2]
        buffer[:] = bytes([number]) * len(buffer)
        expected.update(buffer)
        hasher.update(memoryview(buffer))
    assert hasher.hexdigest() == expected.hexdigest()


@pytest.mark.parametrize("size", [0, 10, 1 << 20])
def test_something_may_be_done_before_a_piece(size: int) -> None:
    hasher, done = Hasher(), [-1]
    hasher.update(b"x")
    hasher.update(bytes(size), first=lambda: done.append(size))
    assert hasher.hexdigest() == hashlib.sha256(b"x" + bytes(size)).hexdigest()
    assert done == [-1, size]


def test_no_thread_stays() -> None:
    before = _thread._count()
    for _ in range(20):
        hasher = Hasher()
        hasher.update(bytes(1 << 20))
        hasher.wait()
    hasher.update(bytes(1 << 20))
    del hasher
    for _ in range(1000):
        if _thread._count() == before:
            break
        _thread.allocate_lock().acquire(timeout=0.01)
    assert _thread._count() == before


def test_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    hasher = Hasher()
    done: list[int] = []
    hasher.update(b"x" * (1 << 20), first=lambda: done.append(1))
    assert hasher.hexdigest() == hashlib.sha256(b"x" * (1 << 20)).hexdigest()
    assert done == [1]
