"""What ``RUN --mount`` asks for, as values (BuildKit, frontend/dockerfile/instructions/commands_runmount.go)."""

from __future__ import annotations

from typing import NamedTuple

BIND, CACHE, TMPFS, SECRET, SSH = TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARED, PRIVATE, LOCKED = SHARINGS = ("shared", "private", "locked")


class RunMount(NamedTuple):
    """One mount of a RUN. A text that was not given is empty.

    ``target`` is as written: absolute or relative to WORKDIR. ``source`` is a path below what ``from_`` names (a stage,
    an image, empty for the build context), or below the cache directory. ``id`` names a cache, secret or agent;
    ``size`` is bytes, 0 for no limit; ``mode`` is None for the type's own. ``env`` is the variable that a secret
    becomes.
    """

    type: str = BIND
    target: str = ""
    source: str = ""
    from_: str = ""
    read_only: bool = True
    id: str = ""
    sharing: str = SHARED
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int = 0
    required: bool = False
    env: str = ""


class Agent(NamedTuple):
    """An SSH agent to be reached at ``target``: ``paths`` are its socket, or private keys; the socket inside has the
    mode and owner."""

    target: str
    paths: tuple[str, ...]
    mode: int
    uid: int
    gid: int
