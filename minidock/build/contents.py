"""The contents of files: read one after the other, hashed beside the reading, and held in memory where asked for."""

from __future__ import annotations

import os
from functools import partial

from minidock.kernel.hashing import Hasher
from minidock.kernel.memory import mapped, populate

_BLOCK = 1 << 21


class Contents:
    """Reads files; those of at most ``small`` bytes into blocks of memory of at most ``hold`` bytes in all. All else
    passes through two blocks in turn: while one is hashed, the next is filled.

    The memory that holds comes in large pieces, whose pages come while others are filled and hashed: a fault for each
    page would cost as much as reading the files again.
    """

    __slots__ = ("_block", "_filled", "_hashed", "_hasher", "_hold", "_holds", "_next", "_passing", "_small")

    def __init__(self, *, small: int, hold: int) -> None:
        self._small = small
        self._hold = hold
        self._next = 2 * small
        self._hasher = Hasher()
        self._passing: list[memoryview] = []
        self._block = memoryview(b"")
        self._holds = False
        self._filled = 0
        self._hashed = 0

    def read(self, fd: int, size: int) -> memoryview | None:
        """Read an open file of ``size`` bytes to its end; the content if it is held, else None.

        Raises EOFError if it has more or less, OSError.
        """
        if size > self._small:
            self._read_large(fd, size)
            return None
        # One more byte is asked for, which must not be there.
        start = self._filled
        end = start + size
        if end >= len(self._block):
            self._turn(size + 1)
            start, end = 0, size
        if os.readv(fd, [self._block[start : end + 1]]) != size:
            raise EOFError
        self._filled = end
        return self._block[start:end] if self._holds else None

    def digest(self) -> bytes:
        """The sha256 of all contents, one after the other."""
        self._hash()
        return self._hasher.digest()

    def _read_large(self, fd: int, size: int) -> None:
        self._hash()
        while size:
            block = self._pass()
            got = os.readv(fd, [block[:size]])
            if not got:
                raise EOFError
            self._hasher.update(block[:got])
            size -= got
        if os.read(fd, 1):
            raise EOFError
        if not self._holds:
            self._block = self._block[:0]
            self._filled = self._hashed = 0

    def _turn(self, need: int) -> None:
        """Go on with another block, which has room for ``need`` bytes."""
        rest = self._block[self._hashed : self._filled]
        # Each block is as large as those before it together, until they are of full size.
        length = min(self._next, _BLOCK, self._hold)
        self._holds = length >= need
        if self._holds:
            self._hold -= length
            self._next += length
            self._block = mapped(length)
            self._hasher.update(rest, first=partial(populate, self._block))
        else:
            self._hasher.update(rest)
            self._block = self._pass()
        self._filled = self._hashed = 0

    def _pass(self) -> memoryview:
        """The one of two blocks that is not being hashed: each is handed to the hasher before the other is filled, and
        the hasher has one at a time."""
        if len(self._passing) < 2:
            self._passing.append(memoryview(bytearray(_BLOCK)))
        else:
            self._passing.reverse()
        return self._passing[-1]

    def _hash(self) -> None:
        if self._filled > self._hashed:
            self._hasher.update(self._block[self._hashed : self._filled])
            self._hashed = self._filled
