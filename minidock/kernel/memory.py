"""Memory from the kernel itself (mmap(2))."""

from __future__ import annotations

import mmap


def mapped(size: int) -> memoryview:
    """New memory of ``size`` bytes, at least 1, all of it mapped already: a fault for each page costs several times as
    much as the page. It is freed with the last view of it. Raises OSError."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))
