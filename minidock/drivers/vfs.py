"""The driver ``vfs``: every layer is a whole tree of its own, copied from the one beneath.

Slow and large, but it asks nothing of the kernel or the file system: the driver of last resort, and the plain model
that ``overlay2`` is tested against.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers import trees
from minidock.drivers.base import TreeDriver
from minidock.drivers.layers import Layers
from minidock.model.steps import TreeMount

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from minidock.drivers.interface import Change
    from minidock.drivers.packed import Packed
    from minidock.drivers.tar_format import Reader
    from minidock.drivers.unpack import Unpacked
    from minidock.model.dating import Dating


class Vfs(TreeDriver):
    """A writable layer is ``tree``, the whole root file system; ``directory`` holds the layers' trees."""

    name = "vfs"

    __slots__ = ()

    def __init__(self, directory: str) -> None:
        super().__init__(directory, Layers(directory, chained=True))

    @staticmethod
    def probe(scratch_dir: str) -> str:
        """Try what the driver needs in the empty directory ``scratch_dir``: "" when it works, else what is missing."""
        try:
            os.chown(scratch_dir, 1, 1)
            os.chown(scratch_dir, os.geteuid(), os.getegid())
        except OSError as error:
            return f"the owner of files in {scratch_dir} cannot be changed ({error.strerror})"
        return ""

    def unpack(self, diff_ids: Sequence[str], tar: Reader, staging_dir: str) -> None:
        from minidock.drivers.tar_reader import TarReader
        from minidock.drivers.unpack import unpack_layer

        staged = trees.new_directory(staging_dir, "layer")
        for name in ("difference", "tree"):
            os.mkdir(f"{staged}/{name}", 0o700)
        with (
            trees.opened(self._tree(diff_ids[:-1])) as beneath,
            trees.opened(f"{staged}/difference") as difference,
            trees.opened(f"{staged}/tree") as tree,
        ):
            unpacked = unpack_layer(TarReader(tar), difference, (lambda: beneath) if len(diff_ids) > 1 else None)
            trees.copy(beneath, tree)
            _delete(unpacked, tree)
            trees.merge(difference, tree)
        with trees.opened(staged) as fd:
            trees.remove("difference", fd)
        self._layers.publish(staged, self._layers.key(diff_ids, self_contained=False))

    def prepare(self, diff_ids: Sequence[str], writable: str) -> None:
        path = f"{writable}/tree"
        os.mkdir(path, 0o700)
        with trees.opened(self._tree(diff_ids)) as source, trees.opened(path) as target:
            trees.copy(source, target)

    def mounts(self, diff_ids: Sequence[str], writable: str | None, *, durable: bool = False) -> TreeMount:
        del durable
        if writable is None:
            return TreeMount(self._tree(diff_ids), read_only=True)
        return TreeMount(f"{writable}/tree")

    def pack(
        self,
        diff_ids: Sequence[str],
        writable: str,
        out: BinaryIO,
        *,
        stubs: Collection[str] = (),
        omit: bool = True,
        dating: Dating | None = None,
    ) -> Packed:
        from minidock.drivers.pack import pack
        from minidock.drivers.stubs import remove_stubs

        with trees.opened(self._tree(diff_ids)) as below, trees.opened(f"{writable}/tree") as tree:
            if stubs:
                remove_stubs(tree, below, stubs)
            return pack(tree, below if omit else -1, out, copied=True, dating=dating)

    def adopt(self, diff_ids: Sequence[str], writable: str, packed: Packed, *, tar: str) -> None:
        del packed, tar
        staged = trees.new_directory(writable, "adopted")
        os.rename(f"{writable}/tree", f"{staged}/tree")
        self._layers.publish(staged, self._layers.key(diff_ids, self_contained=False))

    def changes(self, diff_ids: Sequence[str], writable: str) -> Iterator[Change]:
        from minidock.drivers.pack import changes

        with trees.opened(self._tree(diff_ids)) as below, trees.opened(f"{writable}/tree") as tree:
            yield from changes(tree, below, copied=True)

    def _tree(self, diff_ids: Sequence[str]) -> str:
        return self._layers.path(diff_ids) if diff_ids else self.empty


def _delete(unpacked: Unpacked, tree_fd: int) -> None:
    """Do a layer's deletions on the copy of what is beneath it."""
    for path in unpacked.opaque:
        fd = trees.try_open_directory(tree_fd, path)
        if fd >= 0:
            try:
                trees.clear(fd)
            finally:
                os.close(fd)
    for path in unpacked.deleted:
        directory, _, name = path.rpartition("/")
        fd = trees.try_open_directory(tree_fd, directory)
        if fd >= 0:
            try:
                trees.remove(name, fd)
            finally:
                os.close(fd)
