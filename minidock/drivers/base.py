"""What drivers that keep their layers as trees have in common."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers import trees
from minidock.drivers.form import TREE, Form
from minidock.drivers.layers import Layers

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from contextlib import AbstractContextManager

    from minidock.drivers.compose import Composer
    from minidock.drivers.indexer import Indexer
    from minidock.drivers.packed import Sealed
    from minidock.drivers.tar_format import Reader
    from minidock.drivers.verify import Flaw

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

    @property
    def form(self) -> Form:
        return Form(TREE, "the driver has no other")

    def missing(self, diff_ids: Sequence[str]) -> list[int]:
        """Which of the layers, counted from 1, have to be unpacked."""
        return [count for count in range(1, len(diff_ids) + 1) if not self._layers.find(diff_ids[:count])]

    def share(self, diff_ids: Sequence[str]) -> bool:
        """Trees are ready as they are."""
        del diff_ids
        return False

    def rest(self, keep: Collection[str], *, seconds: float) -> None:
        """Trees hold nothing."""

    def indexer(self, diff_ids: Sequence[str] = ()) -> AbstractContextManager[Indexer | None]:
        """Trees have no index."""
        del diff_ids
        return nullcontext()

    def compose(self, diff_ids: Sequence[str], out: BinaryIO) -> AbstractContextManager[Composer | None]:
        """Trees are made of writable layers only."""
        del diff_ids, out
        return nullcontext()

    def publish(self, diff_ids: Sequence[str], index: Sealed, *, tar: str) -> None:
        """Never called: no index was given out."""
        raise NotImplementedError(f"{self.name} keeps no indexes")

    def keys(self) -> list[str]:
        return self._layers.keys()

    def remove(self, key: str) -> None:
        """Remove a layer that nothing uses; one that is gone already is fine. Raises OSError."""
        self._layers.remove(key)

    def verify(self, diff_ids: Sequence[str], tar: Reader) -> list[Flaw]:
        """Which trees of the topmost of ``diff_ids`` are torn, as their state tells. Raises OSError."""
        del tar
        from minidock.drivers.verify import Flaw

        torn = self._layers.torn(diff_ids)
        return [Flaw(key, TREE, f"the unpacked layer {self.directory}/{key} is not whole") for key in torn]

    def discard(self, flaw: Flaw) -> None:
        """Remove a torn tree; one that is whole by now stays. Raises OSError."""
        if not self._layers.is_whole(flaw.key):
            self._layers.remove(flaw.key)

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
