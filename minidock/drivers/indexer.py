"""From the entries of a layer's tar to its index, in the pass that reads or writes the tar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.drivers.layer_tree import LayerTree
from minidock.drivers.nodes import InexpressibleError
from minidock.drivers.tarballs import seal

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.drivers.packed import Sealed
    from minidock.drivers.tar_format import Entry


class Indexer:
    """Takes every entry with the offset of its content; what an index cannot express ends it with a ``problem``, a
    phrase, and the tar is read or written on without it.

    ``below`` gives the merged view of the layers beneath when it is first needed. A layer whose place is not known yet
    is taken as the lowest, and has no index if that makes a difference (``anywhere``).
    """

    __slots__ = ("_anywhere", "_tree", "problem")

    def __init__(self, below: Callable[[], int] | None, *, anywhere: bool = False) -> None:
        self._tree: LayerTree | None = LayerTree(below)
        self._anywhere = anywhere
        self.problem = ""

    def add(self, entry: Entry, offset: int) -> None:
        """Raises ArchiveError for what no layer may hold."""
        if self._tree is None:
            return
        try:
            self._tree.add(entry, offset)
        except InexpressibleError as error:
            self._give_up(str(error))

    def finish(self, *, diff_id: str, tar_size: int) -> Sealed | None:
        """The index, None where there can be none. Raises ArchiveError."""
        if self._tree is None:
            return None
        try:
            sealed = seal(self._tree, diff_id=diff_id, tar_size=tar_size)
        except InexpressibleError as error:
            self._give_up(str(error))
            return None
        if self._anywhere and not sealed.self_contained:
            self._give_up("it depends on the layers beneath")
            return None
        return sealed

    def _give_up(self, problem: str) -> None:
        self._tree = None
        self.problem = problem
