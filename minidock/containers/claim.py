"""A maker's claim on a ``--rm`` container that it is about to start.

``create --rm`` leaves a container for a later ``start``; ``run --rm`` must leave nothing, also when it is killed
between the two. So ``run`` holds the lock of the file ``claim`` in the container's folder from before the folder
appears until the container has started. A container that was never started and whose claim nobody holds is a leftover
(``status``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.store import locks

if TYPE_CHECKING:
    from types import TracebackType

_NAME = "claim"


class Claim:
    """Taken by ``create``, given up at the end of the context or with the process."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        self._fd = -1

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def take(self, directory: str) -> None:
        """Claim the container that is being assembled in ``directory``. Raises OSError."""
        self._fd = locks.open_lock(f"{directory}/{_NAME}")
        locks.try_lock(self._fd)


def is_abandoned(directory: str) -> bool:
    """True when somebody claimed the container and has gone."""
    path = f"{directory}/{_NAME}"
    return os.path.exists(path) and not locks.is_held(path)
