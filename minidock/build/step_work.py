"""One step at work: the surroundings that ``work.StepWork`` describes, above the layers that the step stands on."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from minidock.build.cache import CacheRecord
from minidock.build.tools import usable
from minidock.build.tree import DIRECTORY_FLAGS, SourceTree
from minidock.model.dating import Dating, to_rfc3339
from minidock.model.digest import chain_id
from minidock.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from minidock.build.cache import Key
    from minidock.build.context_parts import ContextPart
    from minidock.build.progress import StepProgress
    from minidock.build.selection import Selection
    from minidock.build.sources.fetcher import Fetcher
    from minidock.build.tools import StageResult, Tools
    from minidock.build.work import LayerWriter, RunStep, Source
    from minidock.model.oci import Descriptor
    from minidock.model.steps import RootMount
    from minidock.rootfs import Composed
    from minidock.store.staging import Staging


class Work:
    """One step at work: its writable layer is made when it is first asked for. See ``work.StepWork``.

    ``since`` is the time of what the step stands on, ``newest`` the latest of that and of what it adds, in seconds.
    """

    __slots__ = (
        "_above",
        "_composed",
        "_ensured",
        "_open",
        "_prepared",
        "_results",
        "_since",
        "_tools",
        "_writable",
        "below",
        "context_parts",
        "dating",
        "newest",
        "progress",
    )

    def __init__(
        self,
        tools: Tools,
        results: dict[int, StageResult],
        below: tuple[str, ...],
        writable: str,
        progress: StepProgress,
        *,
        context_parts: dict[tuple[Source, str], ContextPart],
        since: int = 0,
    ) -> None:
        self._since = self.newest = since
        self.dating = Dating()
        self._tools = tools
        self._results = results
        self.context_parts = context_parts
        self._writable = writable
        self._prepared = False
        self._ensured = False
        self._composed: Composed | None = None
        self._open = ExitStack()
        self._above = below
        self.below = below
        self.progress = progress

    def __enter__(self) -> Work:
        return self

    def move(self, tools: Tools, writable: str, progress: StepProgress) -> None:
        """Go on in a process of its own, with what was opened so far."""
        self._tools = tools
        self._writable = writable
        self.progress = progress

    def __exit__(self, *_: object) -> None:
        self._open.close()
        if self._prepared:
            self._tools.pending.add_directory(self._writable)

    @property
    def run(self) -> RunStep:
        return self._tools.run

    @property
    def fetcher(self) -> Fetcher:
        return self._tools.contexts.fetcher

    @property
    def staging(self) -> Staging:
        return self._tools.staging

    def date(self, epoch: int | None, newest: int | None) -> None:
        given = newest if epoch is None else epoch
        # A layer that stands on nothing has nothing of what is beneath.
        since = self._since if self.below else 0
        self.dating = Dating(epoch, since if given is None else given)
        self.newest = max(since, newest or 0) if epoch is None else epoch

    def cut_times(self, epoch: int | None) -> None:
        if epoch is not None:
            self.dating, self.newest = Dating(epoch), epoch

    @property
    def created(self) -> str:
        """When what the step has made counts as made (RFC 3339): no clock decides that."""
        return to_rfc3339(self.newest)

    def meanwhile(self) -> None:
        self._tools.pending.finish()

    def mounts(self) -> RootMount:
        self._prepare()
        return self._tools.rootfs.mounts(self.below, self._writable)

    def open_below(self) -> AbstractContextManager[int]:
        self._ensure_below()
        return self._tools.rootfs.open_root(self.below, None)

    def stand_alone(self) -> None:
        self.below = ()
        self._ensured = False

    def open_root(self) -> AbstractContextManager[int]:
        self._prepare()
        return self._tools.rootfs.open_root(self.below, self._writable)

    @contextmanager
    def compose(self) -> Iterator[LayerWriter | None]:
        tools = self._tools
        self._ensure_below()
        with tools.rootfs.compose(
            self.below, tools.staging, store=tools.pending.add_layer, on_written=self.progress.copied
        ) as composed:
            yield composed.composer if composed is not None else None
        self._composed = composed

    def open_source(self, source: Source) -> SourceTree:
        layers = self.source_layers(source)
        if layers is None:
            return self._tools.contexts.tree(source.context)
        self._ensure(layers)
        root = self._open.enter_context(self._tools.rootfs.open_root(layers, None))
        return SourceTree(root, name=source.name, keep_owner=True)

    def source_layers(self, source: Source) -> tuple[str, ...] | None:
        return self._results[source.stage].diff_ids if source.stage >= 0 else source.image

    def extract(self, archive: BinaryIO, root: int, directory: str, *, mtime: int | None = None) -> None:
        self._tools.rootfs.extract(archive, root, directory, mtime=mtime)

    def at_end(self, callback: Callable[[], None]) -> None:
        self._open.callback(callback)

    def layer_of(self, selection: Selection, destination: str, key: Key) -> str | None:
        tools = self._tools
        record = usable(tools, key)
        if record is not None:
            tools.cache.touch(key)
            return record.diff_id
        from minidock.build.direct import compose
        from minidock.build.placement import newest_of
        from minidock.build.writer import Look

        alone = f"{self._writable}-alone"
        with Work(tools, self._results, (), alone, self.progress, context_parts=self.context_parts) as work:
            work.date(None, newest_of([selection]))
            if not compose(work, destination, lambda _: Look(), selections=[selection], heredocs=()):
                return None
            layer = work.commit(())
        if layer is None:
            return None
        tools.pending.add_record(key, CacheRecord(layer.digest, work.created))
        return layer.digest

    def mount_source(self, source: Source, *, writable: bool) -> RootMount:
        layers = self.source_layers(source)
        assert layers is not None, "a context has no layers"
        self._ensure(layers)
        if not writable:
            return self._tools.rootfs.mounts(layers, None)
        path = self.scratch_path()
        self._tools.rootfs.prepare(layers, path)
        return self._tools.rootfs.mounts(layers, path)

    def scratch_path(self) -> str:
        path = f"{self._writable}-scratch-{os.urandom(4).hex()}"
        os.mkdir(path, 0o700)
        self._open.callback(remove_tree, path)
        return path

    def scratch(self) -> int:
        path = self.scratch_path()
        fd = os.open(path, DIRECTORY_FLAGS)
        self._open.callback(os.close, fd)
        return fd

    def commit(self, stubs: Collection[str]) -> Descriptor | None:
        """The step's difference as a layer, or None if there is none."""
        layer = self._composed.layer if self._composed is not None else self._packed(stubs)
        if layer is not None and self.below != self._above:
            self._make_ready(layer.digest)
        return layer

    def _make_ready(self, diff_id: str) -> None:
        """What was made above nothing is to be used above the layers that the step stood on before."""
        if not self._tools.rootfs.driver.has((*self._above, diff_id)):
            # There it has to be unpacked anew, and that is done from its blob.
            self._tools.pending.finish()

    def _packed(self, stubs: Collection[str]) -> Descriptor | None:
        self._prepare()
        tools = self._tools
        dating = None
        if self.dating != Dating():
            dating = self.dating.above(os.stat(self._writable).st_mtime_ns)
        return tools.rootfs.commit(
            self.below, self._writable, tools.staging, stubs=stubs, dating=dating, store=tools.pending.add_layer
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
