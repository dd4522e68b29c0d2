"""A look at what storage drivers keep of layers, which is all made from tarballs and can be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.drivers.form import TREE
from minidock.engine.findings import Problem
from minidock.errors import MinidockError
from minidock.model.digest import Chain
from minidock.rootfs import Rootfs
from minidock.store.blobs import Blobs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from minidock.drivers.interface import Driver
    from minidock.drivers.verify import Flaw
    from minidock.engine.base import EngineBase
    from minidock.store.checking import Checking

_CAN_BE_REMOVED = "`minidock system check --repair` removes it, and it is made again when it is next needed"
_REMOVED = "it is removed, and made again when it is next needed"
_BUSY = "a running container uses it: stop that first"


class LayerChecks:
    """Looks at each layer once, with every storage driver that has layers.

    With ``repair`` what is found is removed, but for the trees whose names (as ``Driver.keys`` has them) are in
    ``busy``: no kernel keeps an overlay right when what is beneath it goes.
    """

    __slots__ = ("_busy", "_checking", "_found", "_repair", "_rootfs")

    def __init__(
        self,
        engine: EngineBase,
        checking: Checking,
        drivers: Sequence[Driver],
        *,
        busy: Collection[str] = (),
        repair: bool = False,
    ) -> None:
        root = engine.root
        self._rootfs = [Rootfs(root, driver, Blobs(root), engine.log) for driver in drivers]
        self._checking = checking
        self._busy = busy
        self._repair = repair
        self._found: dict[str, list[Problem]] = {}

    def chain(self, diff_ids: Sequence[str]) -> list[Problem]:
        """What is wrong with the layers of an image, lowest first, whose tarballs are whole."""
        chain = Chain(diff_ids)
        found: list[Problem] = []
        for count, diff_id in enumerate(diff_ids, 1):
            name = chain.id(count)
            if name not in self._found:
                whole = not self._checking.blob(diff_id)
                self._found[name] = list(self._layer(diff_ids[:count])) if whole else []
            found += self._found[name]
        return found

    def _layer(self, diff_ids: Sequence[str]) -> Iterator[Problem]:
        for rootfs in self._rootfs:
            try:
                flaws = rootfs.verify(diff_ids)
            except MinidockError as error:
                yield Problem(f"the layer {diff_ids[-1]} cannot be checked: {error.message}", error.hint)
                continue
            for flaw in flaws:
                yield self._flawed(rootfs, flaw)

    def _flawed(self, rootfs: Rootfs, flaw: Flaw) -> Problem:
        if not self._repair:
            return Problem(flaw.what, _CAN_BE_REMOVED)
        if flaw.form == TREE and flaw.key in self._busy:
            return Problem(flaw.what, _BUSY)
        try:
            rootfs.discard(flaw)
        except MinidockError as error:
            return Problem(flaw.what, str(error))
        return Problem(flaw.what, _REMOVED, repaired=True)
