"""Which stage runs when, and where: those that do not need each other run side by side, each in a process.

What is in the cache is found by the builder itself. A process is only made for a stage's first step that has to run,
and only while there are other stages that could run meanwhile.
"""

from __future__ import annotations

import select
import signal
import time
from typing import TYPE_CHECKING

from minidock.build.solver import Solver
from minidock.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from minidock.build.apart import Running
    from minidock.build.progress import StepProgress
    from minidock.build.state import StageState
    from minidock.build.tools import OpenTools, Rest, StageResult, Tools


# A process that was told to stop cleans up; what it has not removed by then is swept by a later command.
_STOP_SECONDS = 10.0
_TICK_SECONDS = 0.5


class Schedule:
    """The stages of one build: ``needs`` gives the numbers of those that one stands on or copies from, ``labels`` are
    what the progress calls them.

    At most ``jobs`` of them run at once; with 1 no process is made. ``open_tools`` gives a process its own.
    """

    __slots__ = ("_jobs", "_labels", "_needs", "_open_tools", "_running", "_solver", "_states", "_tools")

    def __init__(
        self,
        tools: Tools,
        *,
        states: Mapping[int, StageState],
        labels: Mapping[int, str],
        needs: Callable[[int], Iterable[int]],
        open_tools: OpenTools,
        jobs: int,
    ) -> None:
        self._solver = Solver(tools)
        self._tools = tools
        self._states = states
        self._labels = labels
        self._needs = needs
        self._open_tools = open_tools
        self._jobs = jobs
        self._running: dict[int, Running] = {}

    def run(self, order: Sequence[int]) -> Mapping[int, StageResult]:
        """Run the stages, each after all that it needs, as ``order`` has them; their results by number.

        The first failure ends all others. Raises BuildError with the step's place, and whatever else ends a step.
        """
        waiting = list(order)
        try:
            while waiting or self._running:
                if ready := self._ready(waiting):
                    waiting.remove(ready[0])
                    alone = not self._running and len(ready) == 1
                    self._begin(ready[0], alone=alone)
                else:
                    self._receive()
        finally:
            self._stop()
        return self._solver.results

    def _ready(self, waiting: Collection[int]) -> list[int]:
        """What can be begun now."""
        if len(self._running) >= self._jobs:
            return []
        done = self._solver.results
        return [index for index in waiting if all(need in done for need in self._needs(index))]

    def _begin(self, index: int, *, alone: bool) -> None:
        def split(rest: Rest, current: StepProgress) -> None:
            from minidock.build import apart

            self._running[index] = apart.start(rest, self._open_tools, self._tools.progress, current)

        label = self._labels[index]
        self._solver.solve(self._states[index], label=label, split=None if alone or self._jobs == 1 else split)

    def _receive(self) -> None:
        """Wait a little for a word from any process, and take it. Raises what ended a stage."""
        ready, _, _ = select.select([running.receiver.fd for running in self._running.values()], [], [], _TICK_SECONDS)
        if not ready:
            self._tools.progress.tick()
        for index, running in list(self._running.items()):
            receiver = running.receiver
            if receiver.fd not in ready:
                continue
            receiver.receive()
            if receiver.result is not None:
                self._tools.staging.lean_on(receiver.result.diff_ids)
                self._solver.results[index] = receiver.result
            if receiver.result is not None or receiver.failure is not None or receiver.ended:
                self._running.pop(index).close()
            if receiver.failure is not None:
                raise receiver.failure
            if receiver.ended and receiver.result is None:
                name = self._labels[index].strip() or str(index)
                raise BuildError(f"the process that built the stage {name} was killed from outside")

    def _stop(self) -> None:
        """End what still runs; each process cleans up, and tells what was broken off."""
        for running in self._running.values():
            running.signal(signal.SIGINT)
        deadline = time.monotonic() + _STOP_SECONDS
        for running in self._running.values():
            running.drain(deadline)
            running.signal(signal.SIGKILL)
            running.close()
        self._running.clear()
