"""The verbs around images: registries, what a build would do, and what builds leave behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.engine.base import EngineBase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minidock.engine.listings import CacheEntry, Pruned
    from minidock.engine.pulling import Pulled
    from minidock.engine.pushing import Pushed
    from minidock.engine.transfers import Event
    from minidock.model.forecast import StepForecast


class ImageVerbs(EngineBase):
    """The part of ``Engine`` that fetches images and sends them, and looks after the build cache."""

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

    def pull(
        self,
        name: str,
        *,
        platform: str = "",
        all_tags: bool = False,
        tell: Callable[[Event], None] = lambda _: None,
    ) -> Sequence[Pulled]:
        """Fetch an image from its registry, or with ``all_tags`` every one that a repository has a tag for.

        ``platform`` is this machine's unless given; ``tell`` is told what becomes of each layer, by one thread at a
        time. Raises RegistryError, NoSuchImageError for a platform that there is not, InvalidReferenceError.
        """
        from minidock.engine import pulling

        return pulling.pull(self, name, platform=platform, all_tags=all_tags, tell=tell)

    def push(
        self, name: str, *, all_tags: bool = False, tell: Callable[[Event], None] = lambda _: None
    ) -> Sequence[Pushed]:
        """Send an image to the repository that its name says, or with ``all_tags`` all that have a name there.

        What was pulled goes back bit for bit. Raises NoSuchImageError, RegistryError, UsageError.
        """
        from minidock.engine import pushing

        return pushing.push(self, name, all_tags=all_tags, tell=tell)

    def login(self, registry: str, user: str, secret: str) -> str:
        """Try credentials on a registry (``HOST[:PORT]``, "" for Docker Hub) and keep them; returns where.

        Raises RegistryError where the registry does not take them.
        """
        from minidock.engine import logins

        return logins.login(self, registry, user, secret)

    def logout(self, registry: str) -> bool:
        """Forget the credentials of a registry; whether there were any. Raises RegistryError."""
        from minidock.engine import logins

        return logins.logout(registry)
