"""The lower directories of an overlay, opened: paths stay paths, layers in pinned namespaces become descriptors."""

from __future__ import annotations

import os
from collections.abc import Sequence

from minidock.kernel.pinned import Pinned


def open_lowers(lowers: Sequence[str | tuple[str, ...]]) -> list[str | int]:
    """What ``overlay`` takes: of a tuple that begins with a pin's directory and a name, a detached clone of that mount.

    The descriptors are the caller's to close; on failure none is left open. Raises OSError, FileNotFoundError for a
    mount that is not there.
    """
    opened: list[str | int] = [lower if isinstance(lower, str) else -1 for lower in lowers]
    places: dict[str, list[int]] = {}
    for number, lower in enumerate(lowers):
        if not isinstance(lower, str):
            places.setdefault(lower[0], []).append(number)
    try:
        for directory, numbers in places.items():
            clones = Pinned(directory).clones([lowers[number][1] for number in numbers])
            for number, fd in zip(numbers, clones, strict=True):
                opened[number] = fd
    except BaseException:
        close_lowers(opened)
        raise
    return opened


def close_lowers(lowers: Sequence[str | int]) -> None:
    """Close the descriptors among ``lowers``."""
    for lower in lowers:
        if isinstance(lower, int) and lower >= 0:
            os.close(lower)
