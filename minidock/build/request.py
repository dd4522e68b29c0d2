"""What a build is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from minidock.model.build_flags import AgentSource, SecretSource
    from minidock.model.cache_places import CacheFrom, CacheTo
    from minidock.model.mounts import Mount


class RunSettings(NamedTuple):
    """What RUN's commands get besides what the Dockerfile says.

    ``hosts`` are names with addresses, or ``host-gateway``; ``shm_size`` is bytes, 0 for the usual; ``volumes`` are
    directories of the host that every RUN has; ``allowed`` are the entitlements that were granted; ``secrets`` and
    ``agents`` are what RUN may mount.
    """

    hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    volumes: tuple[Mount, ...] = ()
    allowed: tuple[str, ...] = ()
    secrets: tuple[SecretSource, ...] = ()
    agents: tuple[AgentSource, ...] = ()


class BuildRequest(NamedTuple):
    """One ``build``.

    ``context`` is a directory of the host, ``-`` for standard input, or an URL. ``dockerfile`` is a path on the host
    (relative to the working directory), in the context where that is no directory of the host, empty for
    ``Dockerfile``, else ``dockerfile``, in the context; ``text`` is a Dockerfile's text that is given instead.
    ``contexts`` are further ones, as ``--build-context`` has them; ``ignorefile`` stands in for ``.dockerignore``.
    ``tags`` are references of any form; ``target`` is a stage's name or number, empty for the last;
    ``network`` is what RUN gets by default, "bridge", "none" or "host". ``pull`` asks for base images anew;
    ``no_cache`` runs every step; ``labels`` are added to the image; ``ulimits`` are what RUN's commands have, as
    ``--ulimit`` says it, ``run`` the rest of what they have. ``platform`` is what the image is for, in its one
    spelling, empty for this machine; the variables of ``unset_env`` and the base's labels of ``unset_labels`` are left
    out of it. ``jobs`` is how many stages may run at once. What a step that fails has left is kept with
    ``keep_failed``. With ``explain`` the progress says why steps missed the cache. ``no_cache_filter`` names
    stages whose steps all run; ``cache_from`` is where steps may be taken from that the store does not know,
    ``cache_to`` where those of this build go.
    """

    context: str
    dockerfile: str = ""
    text: str | None = None
    tags: tuple[str, ...] = ()
    build_args: tuple[tuple[str, str], ...] = ()
    target: str = ""
    no_cache: bool = False
    pull: bool = False
    network: str = "bridge"
    labels: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[str, ...] = ()
    run: RunSettings = RunSettings()
    contexts: tuple[str, ...] = ()
    ignorefile: str = ""
    platform: str = ""
    unset_env: tuple[str, ...] = ()
    unset_labels: tuple[str, ...] = ()
    jobs: int = 1
    no_cache_filter: tuple[str, ...] = ()
    cache_from: tuple[CacheFrom, ...] = ()
    cache_to: tuple[CacheTo, ...] = ()
    keep_failed: bool = False
    explain: bool = False
