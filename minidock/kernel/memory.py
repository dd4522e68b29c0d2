"""Memory from the kernel itself (mmap(2), madvise(2))."""

from __future__ import annotations

import ctypes
import mmap

# Linux 5.14; Python's mmap does not know it.
_MADV_POPULATE_WRITE = 23

# Unlike the calls of ``syscall`` this one lets go of the interpreter's lock: it is long, and made beside other work.
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def mapped(size: int) -> memoryview:
    """New memory of ``size`` bytes, at least 1, all zero. It is freed with the last view of it. Raises OSError."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def populate(memory: memoryview) -> None:
    """Give new memory its pages at once: a fault for each costs several times as much as the page. Others may use the
    memory meanwhile. A kernel that cannot do it gives each page when it is used."""
    _madvise(ctypes.addressof(ctypes.c_char.from_buffer(memory)), len(memory), _MADV_POPULATE_WRITE)
