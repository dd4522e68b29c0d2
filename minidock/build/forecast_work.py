"""What a step has at hand when only its keys are asked for, and nothing may be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.progress import QuietProgress
from minidock.build.sources.fetcher import Fetcher
from minidock.build.sources.remote import is_commit
from minidock.build.step_work import Work
from minidock.store.blobs import Blobs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

    from minidock.build.context_parts import ContextPart
    from minidock.build.sources.git import Commit
    from minidock.build.sources.http import Fetched
    from minidock.build.sources.remote import GitSource, HttpSource
    from minidock.build.tools import StageResult, Tools
    from minidock.build.tree import SourceTree
    from minidock.build.work import Source


class UnknownInputError(Exception):
    """What a step depends on cannot be known without doing something; the text says what."""


class AssumedBlobs(Blobs):
    """The blobs of a data root, and all others, too: an image that is not stored yet needs no layer for its steps to be
    forecast, which are then known by the word of its configuration."""

    __slots__ = ()

    def has(self, digest: str) -> bool:  # noqa: ARG002 - as the one that looks
        return True

    def size(self, digest: str) -> int:
        """Bytes, 0 of a blob that is not there."""
        return super().size(digest) if super().has(digest) else 0


class ForecastWork(Work):
    """See ``work.StepWork``. ``stand_ins`` are in the place of layers that are yet to be made; ``unknown`` says what of
    those was used."""

    __slots__ = ("_stand_ins", "unknown")

    def __init__(
        self,
        tools: Tools,
        results: dict[int, StageResult],
        below: tuple[str, ...],
        *,
        context_parts: dict[tuple[Source, str], ContextPart],
        stand_ins: Collection[str],
    ) -> None:
        progress = QuietProgress(lambda _: None).step("")
        super().__init__(tools, results, below, "", progress, context_parts=context_parts)
        self._stand_ins = stand_ins
        self.unknown = ""

    @property
    def fetcher(self) -> Fetcher:
        return _Offline(self._tools.staging)

    def source_layers(self, source: Source) -> tuple[str, ...] | None:
        layers = super().source_layers(source)
        if layers and not {*layers}.isdisjoint(self._stand_ins):
            self.unknown = f"{source.name} is made anew"
        return layers

    def open_source(self, source: Source) -> SourceTree:
        """Raises UnknownInputError where the files are not there to be looked at."""
        layers = self.source_layers(source)
        if self.unknown:
            raise UnknownInputError(self.unknown)
        if layers is not None:
            self._check_ready(layers, source.name)
        return super().open_source(source)

    def open_below(self) -> AbstractContextManager[int]:
        """Raises UnknownInputError as ``open_source``."""
        if not {*self.below}.isdisjoint(self._stand_ins):
            raise UnknownInputError("what is below it is made anew")
        self._check_ready(self.below, "what is below it")
        return super().open_below()

    def _check_ready(self, layers: tuple[str, ...], name: str) -> None:
        if self._tools.rootfs.driver.missing(layers):
            raise UnknownInputError(f"the layers of {name} are not unpacked")


class _Offline(Fetcher):
    """Knows what can be known without asking anybody."""

    __slots__ = ()

    def file(self, source: HttpSource, tell: Callable[[bytes], None]) -> Fetched:  # noqa: ARG002 - as the other
        raise UnknownInputError(f"{source.shown} is not asked before the build, and has no --checksum")

    def commit(self, source: GitSource, tell: Callable[[bytes], None]) -> Commit:
        if not is_commit(source.ref):
            raise UnknownInputError(f"{source.shown} is not asked before the build, and names no whole commit")
        return super().commit(source, tell)
