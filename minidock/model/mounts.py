"""What ``-v``, ``--mount`` and ``--tmpfs`` ask for: a value, and the grammar that makes it."""

from __future__ import annotations

from typing import NamedTuple


class Mount(NamedTuple):
    """One mount of a container, as asked for and as its record keeps it.

    ``source`` is a host path (bind), a volume's name (volume; empty: anonymous, until ``create`` names it) or empty
    (tmpfs). ``create`` says that a missing source may be made: true for ``-v`` and ``bind-create-src``, never for
    ``--mount`` of a volume. ``options`` are tmpfs mount options. ``origin`` is the flag it came from ("-v", "--mount",
    "--tmpfs", "VOLUME").
    """

    type: str
    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: str = "enabled"
    nocopy: bool = False
    subpath: str = ""
    create: bool = False
    anonymous: bool = False
    options: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    origin: str = "--mount"
