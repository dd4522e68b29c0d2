"""Running the steps of stages: from the cache where a record has the layer, else in the root file system."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.cache import CacheRecord, now
from minidock.build.failures import build_error, message_of
from minidock.build.tree import DIRECTORY_FLAGS, SourceTree
from minidock.errors import MinidockError
from minidock.model.digest import chain_id
from minidock.model.oci import LAYER_TAR, Descriptor
from minidock.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from minidock.build.cache import BuildCache, Key
    from minidock.build.context import Context
    from minidock.build.pending import Pending
    from minidock.build.progress import Progress, StepProgress
    from minidock.build.state import Line, StageState, Step
    from minidock.build.work import LayerWriter, RunStep, Source
    from minidock.dockerfile.excerpt import Source as Text
    from minidock.model.steps import RootMount
    from minidock.rootfs import Composed, Rootfs
    from minidock.store.blobs import Blobs
    from minidock.store.staging import Staging


class Outcome(NamedTuple):
    """What a line's step made: a layer of ``size`` bytes, or None for no difference or no step; ``created`` is empty
    without a step."""

    diff_id: str | None = None
    created: str = ""
    size: int = 0


class StageResult(NamedTuple):
    """A stage that is done: its layers as a manifest has them, the same plain, and the outcome of each own line."""

    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


class Tools(NamedTuple):
    """What steps work with."""

    rootfs: Rootfs
    blobs: Blobs
    cache: BuildCache
    pending: Pending
    staging: Staging
    context: Context
    run: RunStep
    progress: Progress
    text: Text
    no_cache: bool


class Solver:
    """Runs stages one after the other; ``results`` holds those that are done, by number."""

    __slots__ = ("_count", "_tools", "results")

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._count = 0
        self.results: dict[int, StageResult] = {}

    def solve(self, state: StageState, *, label: str) -> StageResult:
        """Run the steps of a stage whose needs are done. ``label`` is what the progress calls it, perhaps empty.

        Raises BuildError with the step's place.
        """
        layers, diff_ids = list(state.base.layers), list(state.base.diff_ids)
        if state.base.stage >= 0:
            below = self.results[state.base.stage]
            layers, diff_ids = list(below.layers), list(below.diff_ids)
        total, number = len(state.steps), 0
        if state.base.diff_ids:
            total, number = total + 1, 1
            self._tools.progress.step(f"[{label}1/{total}] FROM {state.base.reference}").cached()
        outcomes: list[Outcome] = []
        for line in state.lines:
            if line.step is None:
                outcomes.append(Outcome())
                continue
            number += 1
            progress = self._tools.progress.step(f"[{label}{number}/{total}] {line.step.title}")
            outcome = self._solve_line(line, line.step, tuple(diff_ids), progress)
            outcomes.append(outcome)
            if outcome.diff_id is not None:
                diff_ids.append(outcome.diff_id)
                layers.append(Descriptor(LAYER_TAR, outcome.diff_id, outcome.size))
        self._tools.pending.finish()
        result = StageResult(tuple(layers), tuple(diff_ids), tuple(outcomes))
        self.results[state.index] = result
        return result

    def _solve_line(self, line: Line, step: Step, below: tuple[str, ...], progress: StepProgress) -> Outcome:
        self._count += 1
        writable = os.path.join(self._tools.staging.path, f"step-{self._count}")
        try:
            with _Work(self._tools, self.results, below, writable, progress) as work:
                return self._result(step, work)
        except (MinidockError, OSError) as error:
            progress.error(message_of(error))
            raise build_error(self._tools.text, line.location, error) from error
        except BaseException:
            progress.canceled()
            raise

    def _result(self, step: Step, work: _Work) -> Outcome:
        tools = self._tools
        missed: list[Key] = []
        for key in step.keys(work):
            record = None if tools.no_cache else self._usable(key)
            if record is not None:
                for other in missed:
                    tools.cache.save(other, record)
                work.progress.cached()
                size = tools.blobs.size(record.diff_id) if record.diff_id else 0
                return Outcome(record.diff_id, record.created, size)
            missed.append(key)
        stubs = step.perform(work)
        layer = work.commit(stubs)
        record = CacheRecord(layer.digest if layer else None, now())
        for key in missed:
            if layer is None:
                # The next line may be the same one, on the same layers.
                tools.cache.save(key, record)
            else:
                tools.pending.add_record(key, record)
        work.progress.done()
        return Outcome(record.diff_id, record.created, layer.size if layer else 0)

    def _usable(self, key: Key) -> CacheRecord | None:
        """The record of a key, if its layer is still in the store; it stays there until the build ends."""
        record = self._tools.cache.find(key)
        if record is None or record.diff_id is None:
            return record
        self._tools.staging.lean_on([record.diff_id])
        return record if self._tools.blobs.has(record.diff_id) else None


class _Work:
    """One step at work: its writable layer is made when it is first asked for. See ``work.StepWork``."""

    __slots__ = ("_composed", "_ensured", "_open", "_prepared", "_results", "_tools", "_writable", "below", "progress")

    def __init__(
        self,
        tools: Tools,
        results: dict[int, StageResult],
        below: tuple[str, ...],
        writable: str,
        progress: StepProgress,
    ) -> None:
        self._tools = tools
        self._results = results
        self._writable = writable
        self._prepared = False
        self._ensured = False
        self._composed: Composed | None = None
        self._open = ExitStack()
        self.below = below
        self.progress = progress

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        if self._prepared:
            self._tools.pending.add_directory(self._writable)

    @property
    def run(self) -> RunStep:
        return self._tools.run

    def meanwhile(self) -> None:
        self._tools.pending.finish()

    def mounts(self) -> RootMount:
        self._prepare()
        return self._tools.rootfs.mounts(self.below, self._writable)

    def open_root(self) -> AbstractContextManager[int]:
        self._prepare()
        return self._tools.rootfs.open_root(self.below, self._writable)

    @contextmanager
    def compose(self) -> Iterator[LayerWriter | None]:
        tools = self._tools
        self._ensure_below()
        with tools.rootfs.compose(self.below, tools.staging, store=tools.pending.add_layer) as composed:
            yield composed.composer if composed is not None else None
        self._composed = composed

    def open_source(self, source: Source) -> SourceTree:
        layers = self.source_layers(source)
        if layers is None:
            context = self._tools.context
            return SourceTree(context.fd, name=source.name, keep_owner=False, rules=context.rules)
        self._ensure(layers)
        root = self._open.enter_context(self._tools.rootfs.open_root(layers, None))
        return SourceTree(root, name=source.name, keep_owner=True)

    def source_layers(self, source: Source) -> tuple[str, ...] | None:
        return self._results[source.stage].diff_ids if source.stage >= 0 else source.image

    def extract(self, archive: BinaryIO, root: int, directory: str) -> None:
        self._tools.rootfs.extract(archive, root, directory)

    def at_end(self, callback: Callable[[], None]) -> None:
        self._open.callback(callback)

    def scratch(self) -> int:
        path = f"{self._writable}-scratch-{os.urandom(4).hex()}"
        os.mkdir(path, 0o700)
        self._open.callback(remove_tree, path)
        fd = os.open(path, DIRECTORY_FLAGS)
        self._open.callback(os.close, fd)
        return fd

    def commit(self, stubs: Collection[str]) -> Descriptor | None:
        """The step's difference as a layer, or None if there is none."""
        if self._composed is not None:
            return self._composed.layer
        self._prepare()
        tools = self._tools
        return tools.rootfs.commit(
            self.below, self._writable, tools.staging, stubs=stubs, store=tools.pending.add_layer
        )

    def _ensure(self, layers: tuple[str, ...]) -> None:
        """Have the layers' trees, and keep them until the build ends: they go by diff ID or by chain ID."""
        chains = list(layers[:1])
        for diff_id in layers[1:]:
            chains.append(chain_id((chains[-1], diff_id)))
        self._tools.staging.lean_on({*layers, *chains})
        self._tools.rootfs.ensure(layers)

    def _ensure_below(self) -> None:
        if not self._ensured:
            self._ensured = True
            self._ensure(self.below)

    def _prepare(self) -> None:
        if not self._prepared:
            self._prepared = True
            self._ensure_below()
            os.mkdir(self._writable, 0o700)
            self._tools.rootfs.prepare(self.below, self._writable)
