"""The driver ``overlay2``: layers put together by the kernel's overlayfs.

A layer has one of two forms, which give the same tree: it is mounted straight from its tarball, or it is an unpacked
tree. Which one is the host's and the configuration's choice (``forms``); a layer that an index cannot express is a tree
in any case.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers import trees
from minidock.drivers.base import TreeDriver
from minidock.drivers.form import TARBALL, TREE, Form
from minidock.drivers.layers import Layers
from minidock.drivers.whiteouts import set_opaque
from minidock.kernel import overlay
from minidock.kernel.files import fs_magic, fs_name, whiteout
from minidock.kernel.lowers import close_lowers, open_lowers
from minidock.model.digest import Chain
from minidock.model.steps import LayerMount, OverlayMount

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from minidock.drivers.compose import Composer
    from minidock.drivers.indexer import Indexer
    from minidock.drivers.interface import Change
    from minidock.drivers.packed import Packed, Sealed
    from minidock.drivers.tar_format import Reader
    from minidock.drivers.tarballs import Tarballs
    from minidock.drivers.verify import Flaw
    from minidock.model.dating import Dating


_TREES = Form(TREE, "there are no tarballs")


class Overlay2(TreeDriver):
    """A writable layer is ``upper`` and ``work``; ``directory`` holds the layers' trees.

    ``tarballs`` has the indexes and mounts of this data root, None where there is no place for them; ``form`` says
    whether they are used, or only removed with their layers.
    """

    name = "overlay2"

    __slots__ = ("_form", "_known", "_tarballs")

    def __init__(self, directory: str, tarballs: Tarballs | None = None, form: Form = _TREES) -> None:
        super().__init__(directory, Layers(directory, chained=False))
        self._known = tarballs
        self._tarballs = tarballs if form.name == TARBALL else None
        self._form = form

    @property
    def form(self) -> Form:
        return self._form

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
            os.close(overlay.overlay([lower], upper=upper, work=work))
        except OSError as error:
            return f"the kernel mounts no overlayfs on the file system {kind} of {scratch_dir} ({error.strerror})"
        return ""

    def has(self, diff_ids: Sequence[str]) -> bool:
        """Whether the topmost of ``diff_ids`` is here and whole, in either form; no layers at all always are."""
        return not diff_ids or len(diff_ids) not in self.missing(diff_ids)

    def missing(self, diff_ids: Sequence[str]) -> list[int]:
        """Which of the layers, counted from 1, have neither an index nor a tree."""
        return [number for number, layer in enumerate(self._find(diff_ids), 1) if not layer]

    def share(self, diff_ids: Sequence[str]) -> bool:
        """Mount those of the layers that nobody has mounted yet. Raises OSError."""
        if self._tarballs is None:
            return False
        keys = [layer.name if isinstance(layer, LayerMount) else "" for layer in self._find(diff_ids)]
        return self._tarballs.share(diff_ids, keys)

    def rest(self, keep: Collection[str], *, seconds: float) -> None:
        if self._tarballs is not None:
            self._tarballs.rest(keep, seconds=seconds)

    @contextmanager
    def indexer(self, diff_ids: Sequence[str] = ()) -> Iterator[Indexer | None]:
        if self._tarballs is None:
            yield None
            return
        from minidock.drivers.indexer import Indexer

        with _LazyView(self, diff_ids[:-1]) as view:
            yield Indexer(view.open if len(diff_ids) > 1 else None, anywhere=not diff_ids)

    @contextmanager
    def compose(self, diff_ids: Sequence[str], out: BinaryIO) -> Iterator[Composer | None]:
        if self._tarballs is None:
            yield None
            return
        from minidock.drivers.compose import Composer
        from minidock.drivers.indexer import Indexer

        with self._view(diff_ids) as below:
            yield Composer(out, below, Indexer((lambda: below) if diff_ids else None))

    def publish(self, diff_ids: Sequence[str], index: Sealed, *, tar: str) -> None:
        assert self._tarballs is not None, "whoever was given an index has tarballs"
        self._tarballs.publish(diff_ids, index, tar=tar)

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
        lowers = open_lowers(self._lowers(diff_ids)[:1])
        try:
            top = lowers[0]
            path = top if isinstance(top, str) else f"/proc/self/fd/{top}/."
            with trees.opened(path) as source, trees.opened(upper) as target:
                trees.give_attributes(source, target)
        finally:
            close_lowers(lowers)

    def mounts(self, diff_ids: Sequence[str], writable: str | None, *, durable: bool = False) -> OverlayMount:
        lowers = self._lowers(diff_ids)
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
        dating: Dating | None = None,
    ) -> Packed:
        from minidock.drivers.pack import pack
        from minidock.drivers.stubs import remove_stubs

        with self._view(diff_ids) as below, trees.opened(f"{writable}/upper") as upper:
            if stubs:
                remove_stubs(upper, below, stubs)
            compared = below if omit else -1
            if self._tarballs is None:
                return pack(upper, compared, out, copied=False, dating=dating)
            from minidock.drivers.indexer import Indexer

            indexer = Indexer((lambda: below) if diff_ids else None)
            packed = pack(upper, compared, out, copied=False, normalise=False, indexer=indexer, dating=dating)
            index = None if packed.empty else indexer.finish(diff_id=packed.diff_id, tar_size=packed.size)
            if index is None and not packed.empty:
                # The writable layer becomes the layer's tree, so it has to be as that would be unpacked.
                with open(os.devnull, "wb", buffering=0) as nowhere:
                    pack(upper, compared, nowhere, copied=False, dating=dating)
            return packed._replace(sealed=index, problem=indexer.problem)

    def adopt(self, diff_ids: Sequence[str], writable: str, packed: Packed, *, tar: str) -> None:
        if packed.sealed is not None:
            self.publish(diff_ids, packed.sealed, tar=tar)
            return
        staged = trees.new_directory(writable, "adopted")
        os.rename(f"{writable}/upper", f"{staged}/tree")
        # What deletes something belongs to the chain of layers that has it.
        self._layers.publish(staged, self._layers.key(diff_ids, self_contained=not packed.deletions))

    def changes(self, diff_ids: Sequence[str], writable: str) -> Iterator[Change]:
        from minidock.drivers.pack import changes

        with self._view(diff_ids) as below, trees.opened(f"{writable}/upper") as upper:
            yield from changes(upper, below, copied=False)

    def keys(self) -> list[str]:
        keys = self._layers.keys()
        return keys if self._known is None else sorted({*keys, *self._known.keys()})

    def remove(self, key: str) -> None:
        """Remove a layer that nothing uses, in both forms; one that is gone already is fine. Raises OSError."""
        if self._known is not None:
            self._known.remove(key)
        super().remove(key)

    def verify(self, diff_ids: Sequence[str], tar: Reader) -> list[Flaw]:
        """What is wrong with the trees and indexes of the topmost of ``diff_ids``. Raises ArchiveError, OSError."""
        flaws = super().verify(diff_ids, tar)
        if self._known is None:
            return flaws
        from minidock.drivers.verify import index_flaws

        with _LazyView(self, diff_ids[:-1]) as view:
            return flaws + index_flaws(self._known, diff_ids, tar, view.open)

    def discard(self, flaw: Flaw) -> None:
        """Remove a torn tree, or an index with its mount; who uses that keeps it. Raises OSError."""
        if flaw.form == TREE:
            super().discard(flaw)
        elif self._known is not None:
            self._known.remove(flaw.key)

    def usage(self, diff_ids: Sequence[str]) -> int:
        """Bytes on disk of the topmost of ``diff_ids`` besides its tarball, 0 when it is not here."""
        index = self._known.usage(diff_ids) if self._known is not None and diff_ids else 0
        return index + super().usage(diff_ids)

    def _find(self, diff_ids: Sequence[str]) -> list[str | LayerMount]:
        """Each layer, lowest first, as it can be mounted; "" for one that has to be made."""
        if self._tarballs is None:
            return [self._layers.find(diff_ids[:count]) for count in range(1, len(diff_ids) + 1)]
        chain = Chain(diff_ids)
        found: list[str | LayerMount] = []
        for count, diff_id in enumerate(diff_ids, 1):
            key = self._tarballs.find(chain, count)
            found.append(self._tarballs.lower(diff_id, key) if key else self._layers.find(diff_ids[:count]))
        return found

    def _lowers(self, diff_ids: Sequence[str]) -> tuple[str | LayerMount, ...]:
        """The layers, topmost first. Raises FileNotFoundError naming the diff ID of one that is missing."""
        if not diff_ids:
            return (self.empty,)
        if self._tarballs is None:
            return tuple(self._layers.paths(diff_ids))
        found = self._find(diff_ids)
        for layer, diff_id in zip(found, diff_ids, strict=True):
            if not layer:
                raise FileNotFoundError(errno.ENOENT, "the layer is neither indexed nor unpacked", diff_id)
        # A layer that comes again further down adds nothing, and overlayfs refuses it.
        return tuple(dict.fromkeys(reversed(found)))

    def open_view(self, diff_ids: Sequence[str]) -> int:
        """A descriptor of the merged tree of the layers, read-only and mounted nowhere. Raises OSError."""
        self.share(diff_ids)
        lowers = open_lowers(self._lowers(diff_ids))
        try:
            return overlay.overlay(lowers, xino=any(isinstance(lower, int) for lower in lowers))
        finally:
            close_lowers(lowers)

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
