"""The verbs on what builds leave behind: cache mounts, and the records of steps with their layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.engine.base import EngineBase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.engine.listings import CacheEntry, Pruned


class BuilderVerbs(EngineBase):
    """The part of ``Engine`` that looks after the build cache."""

    __slots__ = ()

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
    ) -> Pruned:
        """Remove what no RUN uses, with ``all`` also records whose layers images have; ``ids`` (whole ones) names what
        may go, None means everything. The latest used stays as far as it fits in ``keep_bytes``. Raises StoreError."""
        from minidock.engine import builder_cache

        return builder_cache.prune(self, all=all, ids=ids, keep_bytes=keep_bytes)
