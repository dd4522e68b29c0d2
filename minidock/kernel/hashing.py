"""SHA-256 beside the caller: large pieces are hashed in a thread, for which hashlib lets go of the interpreter's lock.

A pass that reads, hashes and writes then takes the time of its slower half. Each thread ends with its piece, so that
none is left when a stream is given up.
"""

from __future__ import annotations

import _thread
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A thread costs as much as hashing some 50 KB.
_LARGE = 1 << 18


class Hasher:
    """The digest of a stream."""

    __slots__ = ("_free", "_hash")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        # Held while a thread is at work. Thread objects would be waited for twice: when they start and when they end.
        self._free = _thread.allocate_lock()

    def update(self, data: bytes | bytearray | memoryview, *, first: Callable[[], None] | None = None) -> None:
        """Hash ``data``, which follows what came before. It is the hasher's until the next call of any method comes
        back: only then may the caller change it. ``first`` is called before, in the same thread; it raises nothing."""
        self._free.acquire()
        if len(data) < _LARGE:
            self._work(data, first)
            return
        try:
            _thread.start_new_thread(self._work, (data, first))
        except RuntimeError:
            # No more threads are allowed here.
            self._work(data, first)

    def wait(self) -> None:
        """Come back when everything was hashed."""
        with self._free:
            pass

    def hexdigest(self) -> str:
        """The digest of everything so far, as 64 hexadecimal digits."""
        return self.digest().hex()

    def digest(self) -> bytes:
        """The 32 bytes of the digest of everything so far."""
        with self._free:
            return self._hash.digest()

    def _work(self, data: bytes | bytearray | memoryview, first: Callable[[], None] | None) -> None:
        try:
            if first is not None:
                first()
            self._hash.update(data)
        finally:
            self._free.release()
