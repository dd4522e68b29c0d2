"""The driver ``overlay2``: a tree for each layer, put together by the kernel's overlayfs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers import trees
from minidock.drivers.base import TreeDriver
from minidock.drivers.layers import Layers
from minidock.drivers.whiteouts import set_opaque
from minidock.kernel import mount
from minidock.kernel.files import fs_magic, fs_name, whiteout
from minidock.model.steps import OverlayMount

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from minidock.drivers.interface import Change, Packed
    from minidock.drivers.tar_format import Reader

_DELETES = "deletes"


class Overlay2(TreeDriver):
    """A writable layer is ``upper`` and ``work``; ``directory`` holds the layers' trees."""

    name = "overlay2"

    __slots__ = ()

    def __init__(self, directory: str) -> None:
        super().__init__(directory, Layers(directory, chained=False))

    @staticmethod
    def probe(scratch_dir: str) -> str:
        """Try what the driver needs in the empty directory ``scratch_dir``: "" when it works, else what is missing."""
        lower, upper, work = (f"{scratch_dir}/{name}" for name in ("lower", "upper", "work"))
        kind = fs_name(fs_magic(scratch_dir))
        try:
            for path in (lower, upper, work):
                os.mkdir(path, 0o700)
            set_opaque(lower)
            with trees.opened(lower) as fd:
                whiteout(fd, "deleted")
        except OSError as error:
            return f"the file system {kind} of {scratch_dir} cannot hold overlayfs's marks ({error.strerror})"
        try:
            os.close(mount.overlay([lower], upper=upper, work=work))
        except OSError as error:
            return f"the kernel mounts no overlayfs on the file system {kind} of {scratch_dir} ({error.strerror})"
        return ""

    def unpack(self, diff_ids: Sequence[str], tar: Reader, staging_dir: str) -> None:
        from minidock.drivers.tar_reader import TarReader
        from minidock.drivers.unpack import unpack_layer, write_marks

        staged = trees.new_directory(staging_dir, "layer")
        tree = f"{staged}/tree"
        os.mkdir(tree, 0o700)
        with trees.opened(tree) as fd, _LazyView(self, diff_ids[:-1]) as view:
            unpacked = unpack_layer(TarReader(tar), fd, view.open if len(diff_ids) > 1 else None)
            write_marks(unpacked, fd)
        self._layers.publish(staged, self._layers.key(diff_ids, self_contained=unpacked.self_contained))

    def prepare(self, diff_ids: Sequence[str], writable: str) -> None:
        upper = f"{writable}/upper"
        os.mkdir(upper, 0o755)
        os.mkdir(f"{writable}/work", 0o700)
        with trees.opened(self._lowers(diff_ids)[0]) as source, trees.opened(upper) as target:
            trees.give_attributes(source, target)

    def mounts(self, diff_ids: Sequence[str], writable: str | None, *, durable: bool = False) -> OverlayMount:
        lowers = tuple(self._lowers(diff_ids))
        if writable is None:
            return OverlayMount(lowers)
        return OverlayMount(lowers, f"{writable}/upper", f"{writable}/work", volatile=not durable)

    def pack(
        self,
        diff_ids: Sequence[str],
        writable: str,
        out: BinaryIO,
        *,
        stubs: Collection[str] = (),
        omit: bool = True,
    ) -> Packed:
        from minidock.drivers.pack import pack
        from minidock.drivers.stubs import remove_stubs

        with self._view(diff_ids) as below, trees.opened(f"{writable}/upper") as upper:
            if stubs:
                remove_stubs(upper, below, stubs)
            packed = pack(upper, below if omit else -1, out, copied=False)
        if packed.deletions:
            # For adopt: what deletes something belongs to the chain of layers that has it.
            os.close(os.open(f"{writable}/{_DELETES}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return packed

    def adopt(self, diff_ids: Sequence[str], writable: str) -> None:
        staged = trees.new_directory(writable, "adopted")
        os.rename(f"{writable}/upper", f"{staged}/tree")
        deletes = os.path.exists(f"{writable}/{_DELETES}")
        self._layers.publish(staged, self._layers.key(diff_ids, self_contained=not deletes))

    def changes(self, diff_ids: Sequence[str], writable: str) -> Iterator[Change]:
        from minidock.drivers.pack import changes

        with self._view(diff_ids) as below, trees.opened(f"{writable}/upper") as upper:
            yield from changes(upper, below, copied=False)

    def _lowers(self, diff_ids: Sequence[str]) -> list[str]:
        return self._layers.paths(diff_ids) if diff_ids else [self.empty]

    def open_view(self, diff_ids: Sequence[str]) -> int:
        """A descriptor of the merged tree of the layers, read-only and mounted nowhere. Raises OSError."""
        return mount.overlay(self._lowers(diff_ids))

    @contextmanager
    def _view(self, diff_ids: Sequence[str]) -> Iterator[int]:
        fd = self.open_view(diff_ids)
        try:
            yield fd
        finally:
            os.close(fd)


class _LazyView:
    """The merged view of layers, mounted when it is first asked for, as long as the context lasts."""

    __slots__ = ("_diff_ids", "_driver", "_fd")

    def __init__(self, driver: Overlay2, diff_ids: Sequence[str]) -> None:
        self._driver = driver
        self._diff_ids = diff_ids
        self._fd = -1

    def open(self) -> int:
        if self._fd < 0:
            self._fd = self._driver.open_view(self._diff_ids)
        return self._fd

    def __enter__(self) -> _LazyView:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
