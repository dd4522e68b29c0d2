"""Running the steps of stages: from the cache where a record has the layer, else in the root file system."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.build.cache import CacheRecord
from minidock.build.failures import build_error, message_of
from minidock.build.step_work import Work
from minidock.build.tools import Outcome, StageResult, fetched, usable
from minidock.errors import BuildError, MinidockError
from minidock.model.dating import from_rfc3339, later
from minidock.model.digest import chain_id
from minidock.model.oci import LAYER_TAR, Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minidock.build.cache import Key
    from minidock.build.context_parts import ContextPart
    from minidock.build.progress import StepProgress
    from minidock.build.state import Line, StageState, Step
    from minidock.build.tools import Split, Tools
    from minidock.build.work import Source


class Course:
    """How far a stage has come: what its lines so far have made. ``created`` is the latest time of what went into it
    (RFC 3339), perhaps empty; ``before`` the digest of the key of the step before the one at hand, ``missed`` the
    titles of the steps that were not in the cache."""

    __slots__ = (
        "base",
        "before",
        "created",
        "diff_ids",
        "label",
        "layers",
        "missed",
        "number",
        "outcomes",
        "state",
        "total",
    )

    def __init__(
        self, state: StageState, label: str, layers: Sequence[Descriptor], diff_ids: Sequence[str], created: str
    ) -> None:
        self.created = created
        self.state = state
        self.label = label
        self.layers = list(layers)
        self.diff_ids = list(diff_ids)
        self.outcomes: list[Outcome] = []
        self.total = len(state.steps)
        self.number = 0
        self.base = chain_id(diff_ids) if diff_ids else ""
        self.before = ""
        self.missed: list[str] = []

    @property
    def titles(self) -> list[str]:
        """What the steps of the stage are called."""
        return [line.step.title for line in self.state.lines if line.step is not None]

    def place(self, title: str, project: str) -> dict[str, Any]:
        """Where the step at hand stands, for whoever looks for its like later."""
        return {
            "project": project,
            "stage": self.label.strip(),
            "number": self.number,
            "own": self.number - (1 if self.state.base.diff_ids else 0),
            "title": title,
            "base": [self.state.base.reference, self.base],
            "before": self.before,
        }

    def title(self, text: str) -> str:
        """What the progress calls the step that is at hand."""
        return f"[{self.label}{self.number}/{self.total}] {text}"

    def add(self, outcome: Outcome) -> None:
        """The line at hand is done."""
        self.outcomes.append(outcome)
        if self.state.arguments.epoch is None:
            # A layer that stands on nothing may be older than what it stands on here.
            self.created = later(outcome.created, self.created)
        else:
            self.created = outcome.created or self.created
        if outcome.diff_id is not None:
            self.diff_ids.append(outcome.diff_id)
            self.layers.append(Descriptor(LAYER_TAR, outcome.diff_id, outcome.size))

    def result(self) -> StageResult:
        return StageResult(tuple(self.layers), tuple(self.diff_ids), tuple(self.outcomes), self.created)


class _Halt(NamedTuple):
    """A step that is not in the cache, where the builder leaves it."""

    line: Line
    step: Step
    work: Work
    missed: list[Key]


class Solver:
    """Runs the steps of stages; ``results`` holds those that are done, by number."""

    __slots__ = ("_count", "_parts", "_tools", "results")

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._count = 0
        self._parts: dict[tuple[Source, str], ContextPart] = {}
        self.results: dict[int, StageResult] = {}

    def solve(self, state: StageState, *, label: str, split: Split | None = None) -> bool:
        """Run the steps of a stage whose needs are done; whether it is done now. ``label`` is what the progress calls
        it, perhaps empty.

        The first step that is not in the cache is given to ``split``, if there is one: it is handed what goes on from
        there, in another process with tools of its own, and gives the result. Raises BuildError with the step's place.
        """
        layers, diff_ids, created = state.base.layers, state.base.diff_ids, state.base.created
        if state.base.stage >= 0:
            below = self.results[state.base.stage]
            layers, diff_ids, created = below.layers, below.diff_ids, below.created
        course = Course(state, label, layers, diff_ids, created)
        if state.base.diff_ids:
            course.total, course.number = course.total + 1, 1
            self._tools.progress.step(course.title(f"FROM {state.base.reference}")).cached()
        return self._follow(course, split)

    def _follow(self, course: Course, split: Split | None) -> bool:
        """Go on to the stage's end, or to where it is split."""
        lines = course.state.lines
        while len(course.outcomes) < len(lines):
            line = lines[len(course.outcomes)]
            if line.step is None:
                course.add(Outcome())
            elif not self._solve_line(line, line.step, course, split):
                return False
        self._tools.pending.finish()
        self.results[course.state.index] = course.result()
        return True

    def _solve_line(self, line: Line, step: Step, course: Course, split: Split | None) -> bool:
        course.number += 1
        progress = self._tools.progress.step(course.title(step.title))
        with (
            self._placed(line, progress),
            self._work(course, progress) as work,
            self._watched(line, course, work),
        ):
            anew = self._tools.runs_all(course.state.index)
            found, missed = self._look_up(step, work, course, anew=anew)
            if found is None:
                self._explain(missed[-1], course, progress, anew=anew)
            if found is None and split is not None:
                split(partial(self._go_on, _Halt(line, step, work, missed), course), progress)
                return False
            course.add(found or self._perform(step, work, missed, anew=anew))
        return True

    def _go_on(self, halt: _Halt, course: Course, tools: Tools, progress: StepProgress) -> StageResult:
        """In a process of its own: run the step that was not in the cache, and what comes after it."""
        line, step, work, missed = halt
        self._tools = tools
        work.move(tools, self._writable(), progress)
        with self._placed(line, progress), work, self._watched(line, course, work):
            course.add(self._perform(step, work, missed, anew=tools.runs_all(course.state.index)))
        self._follow(course, None)
        return self.results[course.state.index]

    def _work(self, course: Course, progress: StepProgress) -> Work:
        below = tuple(course.diff_ids)
        return Work(
            self._tools,
            self.results,
            below,
            self._writable(),
            progress,
            context_parts=self._parts,
            since=from_rfc3339(course.created),
        )

    def _writable(self) -> str:
        self._count += 1
        return os.path.join(self._tools.staging.path, f"step-{self._count}")

    @contextmanager
    def _placed(self, line: Line, progress: StepProgress) -> Iterator[None]:
        """Give what goes wrong its place in the Dockerfile, and tell of it."""
        try:
            yield
        except BuildError:
            # It has its place, and was told.
            raise
        except (MinidockError, OSError) as error:
            progress.error(message_of(error))
            raise build_error(self._tools.text, line.location, error) from error
        except BaseException:
            progress.canceled()
            raise

    @contextmanager
    def _watched(self, line: Line, course: Course, work: Work) -> Iterator[None]:
        """What goes wrong in a step ends the build; what the step has left is kept, or looked at, where that is
        asked for."""
        try:
            yield
        except (MinidockError, OSError) as error:
            from minidock.build.failed import Stage, leave

            stage = Stage(course.state, course.layers, course.outcomes, self.results)
            raise leave(error, self._tools, line, work, stage=stage) from error

    def _explain(self, key: Key, course: Course, progress: StepProgress, *, anew: bool) -> None:
        """Say why the step at hand is not taken from the cache, if that was asked for."""
        explainer = self._tools.explainer
        if explainer is not None:
            for reason in explainer.reasons(key, course.titles, missed=course.missed, anew=anew):
                progress.missed(reason)
        course.missed.append(course.title(str(key.about["title"])))

    def _look_up(self, step: Step, work: Work, course: Course, *, anew: bool) -> tuple[Outcome | None, list[Key]]:
        """What the cache has of a step; the keys that it has not, all of them where the step is to run ``anew``."""
        tools = self._tools
        missed: list[Key] = []
        for plain in step.keys(work):
            key, record = plain, None if anew else usable(tools, plain)
            if record is None:
                key = plain._replace(about={**plain.about, **course.place(step.title, tools.project)})
                record = None if anew else fetched(tools, key, work.below)
            if record is not None:
                for other in missed:
                    tools.cache.save(other, record)
                tools.cache.touch(key)
                course.before = key.digest
                return self._cached(record, work), missed
            missed.append(key)
        course.before = missed[-1].digest
        return None, missed

    def _cached(self, record: CacheRecord, work: Work) -> Outcome:
        work.progress.cached()
        size = self._tools.blobs.size(record.diff_id) if record.diff_id else 0
        return Outcome(record.diff_id, record.created, size)

    def _perform(self, step: Step, work: Work, missed: list[Key], *, anew: bool) -> Outcome:
        """Run a step, unless another process is at the same one: then wait for what that makes."""
        tools = self._tools
        if anew:
            return self._made(step, work, missed)

        def before_waiting() -> None:
            work.progress.output(b"waiting for another process that runs the same step\n")

        end = tools.cache.claim(missed[-1], tools.pending.finish, before_waiting)
        try:
            # Somebody may have come to its end since the keys were looked up, also without being waited for.
            record = usable(tools, missed[-1])
            return self._cached(record, work) if record is not None else self._made(step, work, missed)
        finally:
            # Whoever waits finds the record, which is on its way.
            tools.pending.add_end(end)

    def _made(self, step: Step, work: Work, missed: list[Key]) -> Outcome:
        tools = self._tools
        stubs = step.perform(work)
        layer = work.commit(stubs)
        record = CacheRecord(layer.digest if layer else None, work.created)
        for key in missed:
            if layer is None:
                # The next line may be the same one, on the same layers.
                tools.cache.save(key, record)
            else:
                tools.pending.add_record(key, record)
        work.progress.done()
        return Outcome(record.diff_id, record.created, layer.size if layer else 0)
