"""What drivers that keep their layers as trees have in common."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.drivers import trees
from minidock.drivers.layers import Layers

if TYPE_CHECKING:
    from collections.abc import Sequence

_EMPTY = "empty"


class TreeDriver:
    """Keeps the layers' trees below ``directory``, and there an empty directory for what has no layers."""

    name = ""

    __slots__ = ("_layers", "directory")

    def __init__(self, directory: str, layers: Layers) -> None:
        self.directory = directory
        self._layers = layers

    @property
    def empty(self) -> str:
        """The root of an image without layers: mode 0755, root's, as old as time."""
        return f"{self.directory}/{_EMPTY}"

    def initialise(self) -> None:
        """Make the driver's directory. Raises OSError."""
        os.makedirs(self.empty, 0o755, exist_ok=True)
        os.chmod(self.directory, 0o700)
        os.chmod(self.empty, 0o755)
        os.utime(self.empty, ns=(0, 0))

    def is_initialised(self) -> bool:
        return os.path.isdir(self.empty)

    def has(self, diff_ids: Sequence[str]) -> bool:
        """Whether the topmost of ``diff_ids`` is here and whole; no layers at all always are."""
        return not diff_ids or self._layers.find(diff_ids) != ""

    def keys(self) -> list[str]:
        return self._layers.keys()

    def remove(self, key: str) -> None:
        """Remove a layer that nothing uses; one that is gone already is fine. Raises OSError."""
        self._layers.remove(key)

    def usage(self, diff_ids: Sequence[str]) -> int:
        """Bytes on disk of the topmost of ``diff_ids``, 0 when it is not here."""
        path = self._layers.find(diff_ids) if diff_ids else ""
        if not path:
            return 0
        with trees.opened(path) as fd:
            return trees.disk_usage(fd)

    def settle(self) -> None:
        """Put all layers on disk, so that they outlive a reboot. Raises OSError."""
        self._layers.settle()
