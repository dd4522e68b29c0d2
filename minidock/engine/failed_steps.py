"""What failed steps of builds have left is kept to the latest few."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from minidock.engine.images import cached_layers, drivers_in_use
from minidock.errors import MinidockError
from minidock.store import locks
from minidock.store.collector import forgiving
from minidock.store.failed_steps import FailedSteps

if TYPE_CHECKING:
    from minidock.engine.base import EngineBase

_KEPT = 5


def trim(engine: EngineBase, name: str) -> None:
    """``name`` is what a build has just left, and is the latest: all but it and a few before it are removed. What goes
    wrong is left to the next removal."""
    root = engine.ready()
    steps = FailedSteps(root)
    with suppress(MinidockError, OSError):
        latest = steps.find(name)
        steps.renew(latest.id)
        superfluous = [step for step in steps.list() if step.id != latest.id][_KEPT - 1 :]
        for step in superfluous:
            steps.remove(step.id)
        if superfluous:
            with locks.exclusive(root.collection_lock):
                forgiving(root, trees=drivers_in_use(engine), keep=cached_layers(root))
