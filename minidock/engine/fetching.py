"""Images that a verb needs and the store may not have: pulled where the policy says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.errors import InvalidReferenceError, MinidockError, NoSuchImageError, UsageError
from minidock.model.digest import is_digest, is_id
from minidock.model.reference import is_derived, parse_reference
from minidock.store.images import Images

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.engine.base import EngineBase
    from minidock.store.images import Image

POLICIES = ("always", "missing", "never")


def check_policy(policy: str) -> None:
    """Raise UsageError for what is no policy."""
    if policy not in POLICIES:
        raise UsageError(f"there is no pull policy {policy!r}", hint=f"it is {', '.join(POLICIES)}")


def fetch(engine: EngineBase, name: str, *, platform: str = "", missing: NoSuchImageError | None = None) -> None:
    """Pull the image that a container is to be made of; ``missing`` says that it is not here.

    Raises NoSuchImageError, with why it could not be had.
    """
    if missing is not None:
        if not _has_registry(name):
            raise missing
        engine.log.notice(f"unable to find the image {name!r} locally, pulling it")
    from minidock.engine import pulling

    try:
        (pulled,) = pulling.pull(engine, name, platform=platform)
    except MinidockError as error:
        if missing is None:
            raise
        reason = error.message.removeprefix("cannot ")
        raise NoSuchImageError(f"{missing.message}, and cannot {reason}", hint=error.hint or missing.hint) from error
    if pulled.fresh:
        engine.log.notice(f"downloaded {parse_reference(pulled.name).familiar()}: {pulled.digest}")


def puller(engine: EngineBase, *, platform: str = "") -> Callable[[str], Image]:
    """What fetches an image for a build and gives it as the store has it then. It raises NoSuchImageError."""

    def pull(name: str) -> Image:
        if not _has_registry(name):
            raise _missing(name, "it is no name that a registry could have")
        from minidock.engine import pulling

        try:
            (pulled,) = pulling.pull(engine, name, platform=platform)
        except MinidockError as error:
            raise _missing(name, error.message, hint=error.hint) from error
        return Images(engine.ready()).get(pulled.id)

    return pull


def _missing(name: str, reason: str, *, hint: str = "") -> NoSuchImageError:
    own = "make a base image with `minidock image bootstrap busybox` or `debian`"
    return NoSuchImageError(f"there is no image {name!r} on this host: {reason}", hint=hint or own)


def _has_registry(name: str) -> bool:
    """Whether a registry could have what the name means."""
    if is_id(name) or is_digest(name) or is_derived(name):
        return False
    try:
        parse_reference(name)
    except InvalidReferenceError:
        return False
    return True
