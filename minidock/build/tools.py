"""What the steps of a build work with, and what they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from minidock.build.cache import BuildCache, CacheRecord, Key
    from minidock.build.cache_records import Offer
    from minidock.build.contexts import Contexts
    from minidock.build.explaining import Explainer
    from minidock.build.pending import Pending
    from minidock.build.progress import Progress, StepProgress
    from minidock.build.work import RunStep
    from minidock.dockerfile.excerpt import Source as Text
    from minidock.errors import BuildError
    from minidock.model.oci import Descriptor
    from minidock.rootfs import Rootfs
    from minidock.store.blobs import Blobs
    from minidock.store.staging import Staging

    # What goes on in another process, with its tools and what tells of the step at hand there; and what sees to that.
    Rest = Callable[["Tools", StepProgress], "StageResult"]
    Split = Callable[[Rest, StepProgress], None]
    # The tools of another process, which tell of their steps to the given progress.
    OpenTools = Callable[[Progress], AbstractContextManager["Tools"]]


class Outcome(NamedTuple):
    """What a line's step made: a layer of ``size`` bytes, or None for no difference or no step; ``created`` is empty
    without a step."""

    diff_id: str | None = None
    created: str = ""
    size: int = 0


class StageResult(NamedTuple):
    """A stage that is done: its layers as a manifest has them, the same plain, and the outcome of each own line.
    ``created`` is the latest time of what went into it (RFC 3339), empty where nothing tells."""

    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    created: str = ""


class Elsewhere(Protocol):
    """Caches of elsewhere; the exchange's."""

    def fetch(self, tools: Tools, key: Key, below: Sequence[str]) -> CacheRecord | None:
        """The record of a step that stands on the layers ``below`` (diff IDs), once its layer is in the store."""

    def offered(self, key: Key) -> Offer | None:
        """What one of them says to have for a step, with nothing fetched."""


class Tools(NamedTuple):
    """What steps work with, in the process that runs them: ``pending``, ``staging``, ``run`` and ``progress`` are its
    own. ``no_cache`` is about every stage, ``uncached`` about those of these numbers; ``imports`` are caches of
    elsewhere. ``project`` tells builds of one Dockerfile and context from others; ``explainer`` says why a step missed
    the cache, where that was asked for. What a step that fails has left is kept with ``keep_failed``; ``before_shell``
    is called before a shell is opened where a command failed, None opens none."""

    rootfs: Rootfs
    blobs: Blobs
    cache: BuildCache
    pending: Pending
    staging: Staging
    contexts: Contexts
    run: RunStep
    progress: Progress
    text: Text
    no_cache: bool
    uncached: frozenset[int] = frozenset()
    project: str = ""
    explainer: Explainer | None = None
    imports: Elsewhere | None = None
    keep_failed: bool = False
    before_shell: Callable[[BuildError], None] | None = None

    def runs_all(self, stage: int) -> bool:
        """Whether the steps of the stage of that number run although the cache has them."""
        return self.no_cache or stage in self.uncached


def usable(tools: Tools, key: Key) -> CacheRecord | None:
    """The record of a key, if its layer is still in the store; it stays there until the build ends."""
    record = tools.cache.find(key)
    if record is None or record.diff_id is None:
        return record
    tools.staging.lean_on([record.diff_id])
    return record if tools.blobs.has(record.diff_id) else None


def fetched(tools: Tools, key: Key, below: Sequence[str]) -> CacheRecord | None:
    """What the caches of elsewhere have for a step on top of the layers ``below`` (diff IDs), which the store does not
    know; the layer stays in the store until the build ends."""
    return None if tools.imports is None else tools.imports.fetch(tools, key, below)
