"""What a build is asked for."""

from __future__ import annotations

from typing import NamedTuple


class BuildRequest(NamedTuple):
    """One ``build``.

    ``context`` is a directory of the host. ``dockerfile`` is a path on the host (relative to the working directory),
    empty for ``Dockerfile``, else ``dockerfile``, in the context; ``text`` is a Dockerfile's text that is given
    instead. ``tags`` are references of any form; ``target`` is a stage's name or number, empty for the last;
    ``network`` is what RUN gets by default, "bridge" or "none". ``pull`` asks for base images anew; ``no_cache`` runs
    every step; ``labels`` are added to the image; ``ulimits`` are what RUN's commands have, as ``--ulimit`` says it.
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
