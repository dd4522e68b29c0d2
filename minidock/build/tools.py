"""What the steps of a build work with, and what they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from minidock.build.cache import BuildCache, CacheRecord, Key
    from minidock.build.contexts import Contexts
    from minidock.build.pending import Pending
    from minidock.build.progress import Progress, StepProgress
    from minidock.build.work import RunStep
    from minidock.dockerfile.excerpt import Source as Text
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
    """A stage that is done: its layers as a manifest has them, the same plain, and the outcome of each own line."""

    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


class Tools(NamedTuple):
    """What steps work with, in the process that runs them: ``pending``, ``staging``, ``run`` and ``progress`` are its
    own."""

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


def usable(tools: Tools, key: Key) -> CacheRecord | None:
    """The record of a key, if its layer is still in the store; it stays there until the build ends."""
    record = tools.cache.find(key)
    if record is None or record.diff_id is None:
        return record
    tools.staging.lean_on([record.diff_id])
    return record if tools.blobs.has(record.diff_id) else None
