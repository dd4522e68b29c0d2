"""The forecast of a build: which steps the cache has, which would run, and what is not known before others have run.

Nothing is written in the data root. A layer that is yet to be made has a stand-in in place of its digest: what is made
on top of it has keys that no record has, and is not known before the build.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from minidock.build.cache import BuildCache
from minidock.build.cache_records import Offer
from minidock.build.checks import named_contexts
from minidock.build.contexts import open_contexts
from minidock.build.explaining import UNUSED, Explainer
from minidock.build.failures import build_error
from minidock.build.forecast_work import AssumedBlobs, ForecastWork, UnknownInputError
from minidock.build.listings import amount, listing_of
from minidock.build.pending import Pending
from minidock.build.precedents import is_like
from minidock.build.progress import QuietProgress
from minidock.build.reading import project_of, read_stages, uncached_stages
from minidock.build.solver import Course
from minidock.build.tools import Outcome, StageResult, Tools, usable
from minidock.errors import MinidockError
from minidock.model.digest import digest_of
from minidock.model.forecast import CACHED, MAY_RUN, RUNS, StepForecast
from minidock.rootfs import Rootfs
from minidock.store.blobs import Blobs
from minidock.store.images import tag_name
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minidock.build.cache import CacheRecord, Key
    from minidock.build.cache_imports import Imports
    from minidock.build.context_parts import ContextPart
    from minidock.build.progress import Progress
    from minidock.build.request import BuildRequest
    from minidock.build.state import Line, StageState, Step
    from minidock.build.work import RunStep, Source
    from minidock.store.images import Image, Images
    from minidock.store.layout import DataRoot

_IF_SAME = "it is cached if that is as it was before"
_HERE = "another step of this build makes it"
# The inputs that can be of what is made anew: the layers beneath first, then sources.
_UNKNOWN = ("below", "files", "mounts", "paths", "source")


def forecast(
    request: BuildRequest,
    *,
    root: DataRoot,
    scratch: DataRoot,
    images: Images,
    rootfs: Rootfs,
    pull: Callable[[str], Image],
    progress: Progress,
) -> tuple[StepForecast, ...]:
    """What ``builder.build`` would do for ``request``, step by step, its FROM lines among them, in the order of the
    stages. ``progress`` is told warnings, and of contexts that have to be fetched.

    ``scratch`` is a data root of its own, where a context of elsewhere is put as long as this takes. What ADD fetches
    is not asked for. Raises what ``build`` raises before any command is run.
    """
    for tag in request.tags:
        tag_name(tag)
    assumed = Rootfs(rootfs.root, rootfs.driver, AssumedBlobs(root), rootfs.log)
    blobs, cache = Blobs(root), BuildCache(root, make=False)
    named = named_contexts(request)
    with (
        Staging(scratch, "plan") as staging,
        open_contexts(request, named, rootfs=assumed, staging=staging, progress=progress) as contexts,
        _imports(request, images, staging, progress) as imports,
    ):
        stages = read_stages(request, contexts, images=images, pull=pull, staging=staging, progress=progress)
        tools = Tools(
            rootfs=rootfs,
            blobs=blobs,
            cache=cache,
            pending=Pending(blobs, cache),
            staging=staging,
            contexts=contexts,
            run=cast("RunStep", None),
            progress=QuietProgress(lambda _: None),
            text=stages.dockerfile.source,
            no_cache=request.no_cache,
            uncached=uncached_stages(request, stages.dockerfile, progress),
            project=project_of(request),
            explainer=Explainer(root),
        )
        forecaster = _Forecaster(tools, imports)
        for index, label in stages.labels.items():
            forecaster.follow(stages.dispatcher.states[index], label)
    return tuple(forecaster.steps)


@contextmanager
def _imports(request: BuildRequest, images: Images, staging: Staging, progress: Progress) -> Iterator[Imports | None]:
    """The caches of elsewhere that are asked, None where there are none."""
    if not request.cache_from:
        yield None
        return
    from minidock.build.cache_imports import Imports

    with Imports(request.cache_from, images=images, staging=staging, progress=progress) as imports:
        yield imports


class _Found(NamedTuple):
    """What is known of a step: its keys, its layer if a cache has it (None for no difference) with its size in bytes,
    whether one has it, and what of its inputs is not known."""

    keys: tuple[Key, ...]
    diff_id: str | None = None
    size: int = 0
    cached: bool = False
    unknown: str = ""


class _Forecaster:
    """Goes through stages as ``solver.Solver`` does; ``steps`` are the forecasts so far."""

    __slots__ = ("_explainer", "_imports", "_made", "_parts", "_planned", "_results", "_stand_ins", "_tools", "steps")

    def __init__(self, tools: Tools, imports: Imports | None) -> None:
        assert tools.explainer is not None
        self._tools = tools
        self._imports = imports
        self._explainer = tools.explainer
        self._parts: dict[tuple[Source, str], ContextPart] = {}
        self._results: dict[int, StageResult] = {}
        self._stand_ins: set[str] = set()
        # What steps that run will make, by the digests of their keys; and the inputs of those.
        self._made: dict[str, str] = {}
        self._planned: list[dict[str, Any]] = []
        self.steps: list[StepForecast] = []

    def follow(self, state: StageState, label: str) -> None:
        """Forecast the steps of a stage, all that it needs having been. Raises BuildError."""
        diff_ids = state.base.diff_ids
        if state.base.stage >= 0:
            diff_ids = self._results[state.base.stage].diff_ids
        course = Course(state, label, (), diff_ids, "")
        if state.base.diff_ids:
            course.total, course.number = course.total + 1, 1
            self.steps.append(StepForecast(course.title(f"FROM {state.base.reference}"), "FROM", CACHED))
        for line in state.steps:
            assert line.step is not None
            course.number += 1
            self._step(line, line.step, course)
        self._results[state.index] = course.result()

    def _step(self, line: Line, step: Step, course: Course) -> None:
        anew = self._tools.runs_all(course.state.index)
        work = ForecastWork(
            self._tools, self._results, tuple(course.diff_ids), context_parts=self._parts, stand_ins=self._stand_ins
        )
        with self._placed(line), work:
            found = self._look_up(step, work, course, anew=anew)
            told = self._told(step, found, work, course, anew=anew)
        self.steps.append(told)
        diff_id = found.diff_id
        if not found.cached:
            diff_id = digest_of(f"made by {found.keys[-1].digest if found.keys else course.title(step.title)}".encode())
            self._stand_ins.add(diff_id)
            course.missed.append(course.title(step.title))
            for key in found.keys:
                self._made[key.digest] = diff_id
                self._planned.append(key.inputs)
        course.before = found.keys[-1].digest if found.keys else ""
        course.add(Outcome(diff_id))

    @contextmanager
    def _placed(self, line: Line) -> Iterator[None]:
        try:
            yield
        except (MinidockError, OSError) as error:
            raise build_error(self._tools.text, line.location, error) from error

    def _look_up(self, step: Step, work: ForecastWork, course: Course, *, anew: bool) -> _Found:
        keys: list[Key] = []
        try:
            for plain in step.keys(work):
                key = plain._replace(about={**plain.about, **course.place(step.title, self._tools.project)})
                keys.append(key)
                if anew:
                    continue
                if key.digest in self._made:
                    return _Found(tuple(keys), self._made[key.digest], cached=True)
                if record := usable(self._tools, key):
                    return _Found(tuple(keys), record.diff_id, self._size(record), cached=True)
                if self._imports is not None and (offer := self._imports.offered(key)):
                    return _Found(tuple(keys), offer.diff_id, self._size(offer), cached=True)
        except UnknownInputError as error:
            return _Found(tuple(keys), unknown=str(error))
        return _Found(tuple(keys), unknown=work.unknown)

    def _size(self, known: CacheRecord | Offer) -> int:
        """The size of a layer that a cache has; 0 where it is not here and the cache does not say."""
        blobs = self._tools.blobs
        if known.diff_id is not None and blobs.has(known.diff_id):
            return blobs.size(known.diff_id)
        return max(known.size, 0) if isinstance(known, Offer) else 0

    def _told(self, step: Step, found: _Found, work: ForecastWork, course: Course, *, anew: bool) -> StepForecast:
        word = step.title.split(maxsplit=1)[0].upper() if step.title else ""
        files, size = self._amount(step, found)
        told = StepForecast(course.title(step.title), word, CACHED, files, size)
        if found.cached and found.diff_id in self._stand_ins:
            return told._replace(why=(_HERE,))
        if found.cached:
            return told._replace(layer=found.size)
        may = not anew and self._may_hit(found, work)
        if anew:
            why = [UNUSED]
        elif found.unknown:
            why = [found.unknown]
        else:
            why = self._explainer.reasons(found.keys[-1], course.titles, missed=course.missed)
        if may:
            why.append(_IF_SAME)
        return told._replace(forecast=MAY_RUN if may else RUNS, why=tuple(why))

    def _may_hit(self, found: _Found, work: ForecastWork) -> bool:
        """Whether a step that depends on what is made anew could be in the cache: there is a record of one with all the
        same inputs but for those that are not known."""
        if not found.keys:
            return True
        apart: tuple[str, ...] = _UNKNOWN if found.unknown else ("below",)
        if self._stand_ins.isdisjoint(work.below):
            if not found.unknown:
                return False
            apart = apart[1:]
        # A step that stands on nothing is known in any case.
        keys = [key for key in found.keys if found.unknown or key.inputs["below"]]
        if keys and self._imports is not None:
            return True
        return any(
            self._explainer.precedents.has_like(key.inputs, apart)
            or any(is_like(made, key.inputs, apart) for made in self._planned)
            for key in keys
        )

    def _amount(self, step: Step, found: _Found) -> tuple[int | None, int | None]:
        """The files that a step copies, and their bytes; None where that is not known, and of steps that copy none."""
        key = found.keys[-1] if found.keys else None
        if key is None or key.inputs.get("instruction") not in ("COPY", "ADD") or "files" not in key.inputs:
            return None, None
        files, size = amount([listing_of(selection) for selection in key.copied])
        bodies = [heredoc.body.encode("utf-8", "surrogateescape") for heredoc in getattr(step, "heredocs", ())]
        return files + len(bodies), size + sum(map(len, bodies))
