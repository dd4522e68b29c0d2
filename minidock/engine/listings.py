"""What the verbs give back that list and explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class ContainerSummary(NamedTuple):
    """A container in a list. Times are nanoseconds since the epoch, 0 for never; ``volumes`` are volumes' names."""

    id: str
    name: str
    image: str
    image_id: str
    command: tuple[str, ...]
    created: int
    status: str
    exit_code: int
    started: int
    finished: int
    labels: Mapping[str, str]
    volumes: tuple[str, ...]
    network: str
    ports: tuple[str, ...]


class LogPiece(NamedTuple):
    """A piece of a container's output: ``stream`` 1 or 2, ``time`` in nanoseconds since the epoch."""

    stream: int
    time: int
    data: bytes


class Pruned(NamedTuple):
    """What a prune removed, and the bytes that this freed."""

    names: tuple[str, ...]
    bytes: int


class CacheEntry(NamedTuple):
    """Something of the build cache: a ``type`` "cachemount", "step", "http" or "failed". ``size`` is bytes on disk, a
    layer's counted once; times are nanoseconds since the epoch, 0 for unknown; a ``busy`` one is in use by a RUN, a
    ``shared`` one's layer is an image's too. ``layer`` is a step's, a diff ID or empty: of several with one layer, the
    latest used has its size; ``origin`` names the cache that a step was taken from."""

    type: str
    id: str
    description: str
    size: int
    created: int
    used: int
    busy: bool
    shared: bool
    layer: str = ""
    origin: str = ""

    @property
    def reclaimable(self) -> bool:
        """Whether its removal frees its size."""
        return not (self.busy or self.shared)


class ExplainedStep(NamedTuple):
    """One step of a plan: where it runs (``parent`` or ``child``), what it is for, and what it does."""

    where: str
    why: str
    text: str
