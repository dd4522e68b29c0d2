"""The verbs that speak to registries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.engine.builder_verbs import BuilderVerbs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minidock.engine.pulling import Event, Pulled
    from minidock.engine.pushing import Pushed


class RegistryVerbs(BuilderVerbs):
    """The part of ``Engine`` that fetches images and sends them."""

    __slots__ = ()

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
