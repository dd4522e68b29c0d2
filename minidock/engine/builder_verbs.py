"""The verbs on what builds leave behind: cache mounts, and the records of steps with their layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.engine.base import EngineBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.engine.listings import CacheEntry, Pruned
    from minidock.model.forecast import StepForecast


class BuilderVerbs(EngineBase):
    """The part of ``Engine`` that looks after the build cache, and tells what it has."""

    __slots__ = ()

    def plan(self, context: str, *, progress: int | None = None, **options: Any) -> Sequence[StepForecast]:
        """What ``build`` would do with these options, which are its own, step by step; nothing is written in the data
        root. Warnings are told on the descriptor ``progress``. Raises what ``build`` raises before it runs a command.
        """
        from minidock.engine import forecasting

        return forecasting.plan(self, context, options, progress=progress)

    def builder_usage(self) -> Sequence[CacheEntry]:
        """What the build cache holds, the latest used first. Raises StoreError."""
        from minidock.engine import builder_cache

        return builder_cache.usage(self)

    def builder_prune(
        self,
        *,
        all: bool = False,  # noqa: A002 - docker's word
        ids: Sequence[str] | None = None,
        keep_bytes: int = 0,
        max_used: int = 0,
        min_free: int = 0,
    ) -> Pruned:
        """Remove what no RUN uses, with ``all`` also records whose layers images have; ``ids`` (whole ones) names what
        may go, None means everything. The latest used stays as far as it fits in ``max_used`` bytes, and leaves
        ``min_free`` bytes free on the disk; ``keep_bytes`` may stay in any case. Raises StoreError."""
        from minidock.engine import builder_cache

        return builder_cache.prune(self, all=all, ids=ids, keep_bytes=keep_bytes, max_used=max_used, min_free=min_free)
