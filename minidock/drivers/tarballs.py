"""Layers mounted straight from their tarballs: an index for each, and one mount that all its users share.

An index is a cache of its tarball: ``<64 hex digits>.idx``, named by the layer's diff ID, or by its chain ID where what
it holds depends on the layers beneath. It is written to a file without a name that is then linked, so that nothing
half-made is ever seen; one that a power failure tore is found by its checksum before it is mounted, and made again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from minidock.drivers import index_file, trees
from minidock.drivers.packed import Sealed
from minidock.errors import CorruptObjectError
from minidock.kernel import erofs
from minidock.kernel.pinned import Pinned
from minidock.model.digest import Chain, chain_id, hex_of, is_id
from minidock.model.steps import LayerMount

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from minidock.drivers.layer_tree import LayerTree

_SUFFIX = ".idx"


class Tars(NamedTuple):
    """Where tarballs lie and how layers are used: ``blobs`` holds each under the 64 digits of its diff ID, ``run`` is
    lost at a reboot; ``form`` is auto, tarball or tree, and ``loop`` allows loop devices where files cannot be mounted.
    """

    blobs: str
    run: str
    form: str = "auto"
    loop: bool = False


class Tarballs:
    """The indexes in ``directory`` and the mounts of what is in use."""

    __slots__ = ("_loop", "directory", "pin", "tars")

    def __init__(self, directory: str, tars: Tars) -> None:
        self.directory = directory
        self.tars = tars.blobs
        self.pin = Pinned(f"{tars.run}/layers")
        self._loop = tars.loop

    def initialise(self) -> None:
        """Make the directory. Raises OSError."""
        os.makedirs(self.directory, 0o700, exist_ok=True)

    def find(self, chain: Chain, count: int) -> str:
        """The name of the index of the layer ``count`` (1 is the lowest) if it is there and whole, else "".

        What is mounted, from the very tarball, was read to its end before; anything else is now. Raises OSError.
        """
        diff_id = chain.diff_ids[count - 1]
        for key in _names(chain, count):
            path = self.path(key)
            try:
                mounted = self._is_mounted(key, diff_id)
                header = index_file.peek(path) if mounted else self._checked(path, diff_id)
            except (FileNotFoundError, CorruptObjectError):
                continue
            if header.self_contained or count == 1 or key != hex_of(diff_id):
                return key
        return ""

    def publish(self, diff_ids: Sequence[str], sealed: Sealed, *, tar: str) -> None:
        """Let ``sealed`` be the index of the topmost layer, and mount it with its tarball, which lies at ``tar`` now.

        An equal one that is there already stays, and so does its mount: another build may be using it, whose tarball
        is on its way, too. Raises OSError.
        """
        self.initialise()
        key = hex_of(diff_ids[-1] if sealed.self_contained else chain_id(diff_ids))
        with self.pin.lock():
            try:
                trees.link_file(self.directory, key + _SUFFIX, sealed.data)
            except FileExistsError:
                self._replace(key, sealed.data)
            if not self.pin.note(key):
                self._mount(key, diff_ids[-1], tar)

    def share(self, diff_ids: Sequence[str], keys: Sequence[str]) -> bool:
        """Mount those of the layers that nobody uses yet, and mark the others as used; whether there were any to mount.

        What is mounted from another file than the tarball of now, one that was replaced, is mounted anew. Raises
        OSError.
        """
        wanted = []
        for diff_id, key in zip(diff_ids, keys, strict=True):
            if key and not self._is_mounted(key, diff_id):
                wanted.append((key, diff_id))
            elif key:
                self.pin.touch(key)
        if wanted:
            with self.pin.lock():
                for key, diff_id in wanted:
                    # While the tarball is on its way, whoever has it has mounted it.
                    with suppress(FileNotFoundError):
                        self._mount(key, diff_id, f"{self.tars}/{hex_of(diff_id)}")
        return bool(wanted)

    def lower(self, diff_id: str, key: str) -> LayerMount:
        return LayerMount(self.pin.directory, key, f"{self.tars}/{hex_of(diff_id)}")

    def keys(self) -> list[str]:
        """Every name that has an index or a mount."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            names = []
        found = {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}
        return sorted(key for key in found | self.pin.names() if is_id(key))

    def remove(self, key: str) -> None:
        """Remove an index and unmount the layer; who uses it keeps it until then. Raises OSError."""
        if not is_id(key):
            raise ValueError(f"not the name of a layer: {key!r}")
        with self.pin.lock():
            self._unlink(key)
            self.pin.detach(key)

    def usage(self, diff_ids: Sequence[str]) -> int:
        """Bytes on disk of the topmost layer's index."""
        for key in _names(Chain(diff_ids), len(diff_ids)):
            with suppress(FileNotFoundError):
                return os.stat(self.path(key)).st_blocks * 512
        return 0

    def rest(self, keep: Collection[str], *, seconds: float) -> None:
        """Unmount what was not used for that long and is not named in ``keep``; also, however short ago, what is
        mounted from a file that is no tarball any more, which only takes the disk. Raises OSError."""
        with self.pin.lock():
            for key in {*self.pin.idle(seconds), *self._orphans()}.difference(keep):
                self.pin.detach(key)

    def _orphans(self) -> list[str]:
        """The mounts whose tarball is gone: a build or import that was killed left them."""
        return [key for key in self.pin.names() if not os.path.exists(f"{self.tars}/{_tar_in(self.pin.note(key))}")]

    def path(self, key: str) -> str:
        return f"{self.directory}/{key}{_SUFFIX}"

    def _checked(self, path: str, diff_id: str) -> index_file.Header:
        size = os.stat(f"{self.tars}/{hex_of(diff_id)}").st_size
        return index_file.load(path, diff_id=diff_id, tar_size=size)

    def _is_mounted(self, key: str, diff_id: str) -> bool:
        """Whether a layer is mounted from the tarball that lies there now. While that is on its way, any mount of it
        serves."""
        note = self.pin.note(key)
        if not note:
            return False
        try:
            status = os.stat(f"{self.tars}/{hex_of(diff_id)}")
        except FileNotFoundError:
            return True
        return note == _note(diff_id, status)

    def _mount(self, key: str, diff_id: str, tar: str) -> None:
        """For the holder of the pin's lock: mount a layer from its tarball at ``tar``, unless it is so already."""
        note, there = _note(diff_id, os.stat(tar)), self.pin.note(key)
        if there == note:
            return
        if there:
            self.pin.detach(key)
        fd = erofs.mount(self.path(key), tar, loop=self._loop)
        try:
            self.pin.attach(key, fd, note=note)
        finally:
            os.close(fd)

    def _replace(self, key: str, data: bytes) -> None:
        """Put an index in the place of one that is another: damaged, or of an older version."""
        with suppress(CorruptObjectError, FileNotFoundError):
            if index_file.read(self.path(key)) == data:
                return
        self._unlink(key)
        trees.link_file(self.directory, key + _SUFFIX, data)

    def _unlink(self, key: str) -> None:
        with suppress(FileNotFoundError), trees.opened(self.directory) as parent:
            trees.remove(key + _SUFFIX, parent)


def _note(diff_id: str, status: os.stat_result) -> str:
    """What a mount is made of: the layer, and the very file that its tarball is."""
    return f"{hex_of(diff_id)} {status.st_dev}:{status.st_ino}:{status.st_size}"


def _tar_in(note: str) -> str:
    return note.partition(" ")[0]


def _names(chain: Chain, count: int) -> Iterator[str]:
    yield hex_of(chain.diff_ids[count - 1])
    if count > 1:
        yield hex_of(chain.id(count))


def seal(tree: LayerTree, *, diff_id: str, tar_size: int) -> Sealed:
    """The index of a layer whose entries are all in ``tree``. Raises InexpressibleError.

    What was built is read again by the strict reader before anybody, the kernel above all, is given it.
    """
    from minidock.drivers import erofs_reader, erofs_writer

    image = erofs_writer.build(tree.finish(), tar_size=tar_size)
    erofs_reader.read(image, tar_size=tar_size)
    data = index_file.seal(image, diff_id=diff_id, tar_size=tar_size, self_contained=tree.self_contained)
    return Sealed(data, tree.self_contained)
