"""Whether what the store holds is what it should be: blobs by their digests, images by what they name."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from minidock.errors import MinidockError
from minidock.model.oci import LAYER_TAR, Descriptor, ImageConfig, Manifest, decode_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from minidock.store.blobs import Blobs
    from minidock.store.index import Entry, Index

    _Decoded = TypeVar("_Decoded")


class Fault(NamedTuple):
    """Something that is wrong with what is stored: ``what`` is a clause that tells people, ``blob`` the digest of the
    blob that is missing or damaged, "" where it is something else."""

    what: str
    blob: str = ""


class Checked(NamedTuple):
    """An image that was looked at: its faults, and the diff IDs of its layers, lowest first, as far as it tells."""

    faults: tuple[Fault, ...]
    diff_ids: tuple[str, ...]


class Checking:
    """One look at the blobs of a data root, each of which is read once. ``size`` is the bytes that were read.

    Nothing may be removed meanwhile: the caller holds the collection lock, shared.
    """

    __slots__ = ("_blobs", "_known", "size")

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._known: dict[str, str] = {}
        self.size = 0

    def blob(self, digest: str) -> str:
        """What is wrong with a blob, a phrase: "is missing", ...; "" where its content has its digest."""
        if digest not in self._known:
            self._known[digest] = self._read(digest)
        return self._known[digest]

    def bad_blobs(self) -> dict[str, str]:
        """The digests that were looked at and are missing or damaged, each with its phrase."""
        return {digest: phrase for digest, phrase in self._known.items() if phrase}

    def image(self, image_id: str, entries: Sequence[Entry]) -> Checked:
        """Look at all that an image is made of: each manifest that its ``entries`` name, configuration and layers."""
        faults: list[Fault] = []
        diff_ids: tuple[str, ...] = ()
        for descriptor in dict.fromkeys(Descriptor(entry.media_type, entry.digest, entry.size) for entry in entries):
            manifest = self._decoded(descriptor, "manifest", decode_manifest, faults)
            if manifest is None:
                continue
            if manifest.config.digest != image_id:
                faults.append(Fault(f"the manifest {descriptor.digest} is that of the image {manifest.config.digest}"))
            for layer in manifest.layers:
                self._check(layer, "layer", faults)
            config = self._decoded(manifest.config, "configuration", ImageConfig.decode, faults)
            if config is not None:
                diff_ids = config.diff_ids
                faults += self._layers(manifest, diff_ids)
        return Checked(tuple(dict.fromkeys(faults)), diff_ids)

    def _layers(self, manifest: Manifest, diff_ids: tuple[str, ...]) -> Iterator[Fault]:
        """Every layer's plain tarball, which is what containers and builds use, whatever form the manifest names."""
        if len(diff_ids) != len(manifest.layers):
            yield Fault(f"its manifest has {len(manifest.layers)} layers and its configuration {len(diff_ids)}")
        for diff_id, layer in zip(diff_ids, manifest.layers, strict=False):
            if layer.media_type == LAYER_TAR and layer.digest != diff_id:
                yield Fault(f"its manifest has the layer {layer.digest} where its configuration has {diff_id}")
        for diff_id in diff_ids:
            if phrase := self.blob(diff_id):
                yield Fault(f"the layer {diff_id} {phrase}", diff_id)

    def _decoded(
        self, descriptor: Descriptor, what: str, decode: Callable[[bytes], _Decoded], faults: list[Fault]
    ) -> _Decoded | None:
        if not self._check(descriptor, what, faults):
            return None
        try:
            return decode(self._blobs.read(descriptor.digest))
        except MinidockError as error:
            faults.append(Fault(error.message))
            return None

    def _check(self, descriptor: Descriptor, what: str, faults: list[Fault]) -> bool:
        digest = descriptor.digest
        phrase = self.blob(digest)
        if phrase:
            faults.append(Fault(f"the {what} {digest} {phrase}", digest))
        elif (size := self._blobs.size(digest)) != descriptor.size:
            faults.append(
                Fault(f"the {what} {digest} has {size} bytes, not the {descriptor.size} that are written of it")
            )
        return not phrase

    def _read(self, digest: str) -> str:
        import hashlib

        try:
            with open(self._blobs.path(digest), "rb", buffering=0, opener=_open_regular) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                self.size += os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return "" if f"sha256:{found}" == digest else "is damaged: its content has another digest"


def _open_regular(path: str, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is not a regular file", path)


def lost_entries(index: Index) -> int:
    """How many lines of ``index.json`` are no descriptors: they name nothing, and go when it is next written."""
    return len(index.raw["manifests"]) - len(index.entries)
