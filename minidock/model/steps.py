"""Steps: every privileged sequence is first a list of these, then done.

A step says in one line what it does (``describe``), in one phrase what it is for (``why``) and on which side of the
container's birth it runs (``where``). The values here are data only; the units that own a facility give them their
``execute``. Drivers return ``RootMount`` values and the runtime mounts them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class Step(Protocol):
    """What ``--debug`` prints as it happens and ``explain`` prints beforehand."""

    @property
    def where(self) -> str:
        """``parent`` (outside of the container's namespaces) or ``child`` (inside, before the command's exec)."""

    @property
    def why(self) -> str:
        """What the step is for: "layers", "writable layer", "volumes", "namespaces", "capabilities", "network", ..."""

    def describe(self) -> str:
        """One line that a person understands, with the real paths and flags."""

    def execute(self, context: Any, /) -> None:
        """Do it. Raises OSError with errno and path, or a MinidockError; ``context`` is the executing unit's own."""


class LayerMount(NamedTuple):
    """A layer mounted from its tarball, once for all who use it: it is ``name`` in the mount namespace that is pinned
    in the directory ``pin``. ``tar`` is the tarball's path, for people."""

    pin: str
    name: str
    tar: str


class OverlayMount(NamedTuple):
    """A kernel overlayfs: ``lowers`` are directories and layers, topmost first; ``upper`` and ``work`` are empty for
    read-only.

    A ``volatile`` one's upper directory need not outlive the machine, so nothing waits for the disk.
    """

    lowers: tuple[str | LayerMount, ...]
    upper: str = ""
    work: str = ""
    volatile: bool = False


class TreeMount(NamedTuple):
    """A plain directory that is the root file system, bind-mounted; ``read_only`` makes it so."""

    path: str
    read_only: bool = False


RootMount = OverlayMount | TreeMount


def decode_root(value: dict[str, Any]) -> RootMount:
    """A root mount from what JSON made of its ``_asdict``."""
    if "path" in value:
        return TreeMount(**value)
    lowers = tuple(lower if isinstance(lower, str) else LayerMount(*lower) for lower in value["lowers"])
    return OverlayMount(**{**value, "lowers": lowers})
