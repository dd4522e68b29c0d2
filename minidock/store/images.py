"""Images: manifests and configurations among the blobs, and their names in ``index.json``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import CorruptObjectError, InvalidReferenceError, MinidockError, NoSuchImageError, StoreError
from minidock.model.digest import digest_of, is_id
from minidock.model.oci import (
    CONFIG,
    LAYER_TAR,
    MANIFEST,
    Descriptor,
    ImageConfig,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from minidock.model.reference import FAILED, is_derived, parse_reference
from minidock.store import locks
from minidock.store.blobs import MAX_METADATA, Blobs
from minidock.store.index import Entry, Index, changing, read_index

if TYPE_CHECKING:
    from minidock.store.layout import DataRoot

Entries = list[Entry]

_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


class Image(NamedTuple):
    """An image. ``id`` is the digest of its configuration; ``names`` are full references, sorted; ``created`` is when
    it was stored here, nanoseconds since the epoch; ``size`` is the bytes of its plain layers.

    ``error`` is empty, or says what of a damaged image is wrong: then ``manifest`` and ``config`` are empty ones.
    ``repo_digests`` are what registries call it, ``HOST/PATH@DIGEST``, sorted.
    ``origin`` is empty but for what is no image of its own: the ID of the image that this is a step of, or of the
    failed step of a build that this is.
    """

    id: str
    manifest_digest: str
    names: tuple[str, ...]
    created: int
    manifest: Manifest
    config: ImageConfig
    size: int
    error: str = ""
    origin: str = ""
    repo_digests: tuple[str, ...] = ()


class Found(NamedTuple):
    """The index's entries of an image; ``named`` are those that the text named, none when it was an ID."""

    id: str
    entries: Entries
    named: tuple[Entry, ...] = ()


class Images:
    """The images of a data root."""

    __slots__ = ("blobs", "root")

    def __init__(self, root: DataRoot) -> None:
        self.root = root
        self.blobs = Blobs(root)

    def list(self) -> list[Image]:
        """Every image once, the latest stored first. A damaged one is listed with its ``error``.

        Raises CorruptObjectError only when the index itself is damaged.
        """
        images: list[Image] = []
        for index in self._until_steady():
            images = [self._image(image_id, entries) for image_id, entries in self.by_id(index).items()]
            if not any(image.error for image in images):
                break
        return sorted(images, key=lambda image: (-image.created, image.id))

    def ids(self) -> set[str]:
        """The IDs of all images, without reading more than the index where it tells."""
        return set(self.by_id(read_index(self.root)))

    def get(self, name_or_id: str) -> Image:
        """The image of that full ID, name (familiar or full) or unique ID prefix, in this order; of ``NAME~N``, the
        image N steps before its end; of ``FAILED`` and ``FAILED:ID``, what a failed step of a build has left.

        Raises NoSuchImageError, InvalidReferenceError for what is neither, CorruptObjectError when it is damaged.
        """
        if is_derived(name_or_id):
            return self._derived(name_or_id)
        error = ""
        for index in self._until_steady():
            try:
                found = self.find(index, name_or_id)
            except NoSuchImageError as missing:
                return self._failed_step(name_or_id, missing)
            image = self._image(found.id, found.entries, found.named[0] if found.named else None)
            if not image.error:
                return image
            error = image.error
        raise CorruptObjectError(
            f"the image {name_or_id} is damaged: {error}",
            hint=f"remove it with `minidock rmi -f {name_or_id}` and build or bootstrap it again",
        )

    def commit(
        self,
        config: ImageConfig,
        layers: Sequence[Descriptor],
        *,
        names: Sequence[str] = (),
        annotations: tuple[tuple[str, str], ...] = (),
    ) -> Image:
        """Store an image whose layers (lowest first, one for each diff ID) are among the blobs already.

        Configuration and manifest are on disk before the index names them. ``names`` are references of any form; each
        then means this image; ``annotations`` are the manifest's. Committing the same again changes nothing. Raises
        StoreError when a layer is missing and for a configuration that is too large to be read again,
        InvalidReferenceError for a name that has a digest.
        """
        full_names = [tag_name(name) for name in names]
        _check_layers(config, layers)
        with locks.shared(self.root.collection_lock):
            for layer in layers:
                if not self.blobs.has(layer.digest):
                    raise StoreError(f"the layer {layer.digest} is not in the store", hint="run the command again")
            encoded = config.encode()
            named = Descriptor(CONFIG, digest_of(encoded), len(encoded))
            manifest = Manifest(named, tuple(layers), annotations=annotations)
            data = encode_manifest(manifest)
            if max(len(encoded), len(data)) > MAX_METADATA:
                # Neither this store nor a registry would read it again.
                raise StoreError(
                    f"the image's configuration or manifest is larger than {MAX_METADATA >> 20} MiB",
                    hint="shorten its history, variables, labels or annotations",
                )
            config_digest, manifest_digest = self.blobs.put_all([encoded, data])
            descriptor = Descriptor(MANIFEST, manifest_digest, len(data))
            with changing(self.root) as index:
                for name in full_names:
                    index.set_name(name, descriptor, config_digest)
                index.add_unnamed(descriptor, config_digest)
        return self._image(config_digest, self.by_id(index)[config_digest])

    def add_pulled(
        self,
        manifest: bytes,
        descriptor: Descriptor,
        config: bytes,
        layers: Sequence[str],
        *,
        names: Sequence[str],
        repo_digests: Sequence[str],
    ) -> tuple[str, bool]:
        """Store an image whose manifest and configuration are kept verbatim; its ID, and whether the index changed.

        ``layers`` are the digests that must be among the blobs already; ``names`` full references that mean it from now
        on, ``repo_digests`` what registries call it. Raises StoreError when a layer is missing.
        """
        with locks.shared(self.root.collection_lock):
            for digest in layers:
                if not self.blobs.has(digest):
                    raise StoreError(f"the layer {digest} is not in the store", hint="run the command again")
            config_digest, _ = self.blobs.put_all([config, manifest])
            with changing(self.root) as index:
                before = list(index.entries)
                for name in names:
                    index.set_name(name, descriptor, config_digest)
                index.add_unnamed(descriptor, config_digest)
                index.add_repo_digests(descriptor.digest, repo_digests)
                return config_digest, index.entries != before

    def tag(self, image: Image, name: str) -> str:
        """Let ``name`` mean ``image`` too; returns the full reference. Raises NoSuchImageError when it has gone."""
        full = tag_name(name)
        with changing(self.root) as index:
            for entry in index.entries:
                if entry.digest == image.manifest_digest:
                    descriptor = Descriptor(entry.media_type, entry.digest, entry.size)
                    index.set_name(full, descriptor, image.id, stored=entry.stored)
                    return full
        raise NoSuchImageError(f"no such image: {image.id}")

    def _derived(self, text: str) -> Image:
        """What is no image of its own; see ``get``."""
        from minidock.model.image_steps import MARK, image_before, split_step, steps_of

        if MARK not in text:
            if text.partition(":")[0] != FAILED:
                raise InvalidReferenceError(f"invalid image reference {text!r}: a repository name is lower-case")
            return self._failed_step(text)
        name, count = split_step(text)
        image = self.get(name)
        number = len(steps_of(image.config))
        if count >= max(number, 1):
            steps = f"{number} steps, {name}~0 to {name}~{number - 1}" if number > 1 else f"only {name}~0"
            raise NoSuchImageError(
                f"there is no {text}: the image {name} has {steps}", hint=f"see `minidock history {name}`"
            )
        if not count:
            return image
        config = image_before(image.config, count)
        layers = image.manifest.layers[: len(config.diff_ids)]
        return self._unstored(config, layers, created=image.created, origin=image.origin or image.id)

    def _failed_step(self, text: str, missing: NoSuchImageError | None = None) -> Image:
        """What a failed step of a build has left; raises ``missing``, if given, where the text means none."""
        from minidock.store.failed_steps import FailedSteps

        try:
            step = FailedSteps(self.root).find(text)
        except NoSuchImageError:
            if missing is not None:
                raise missing from None
            raise
        return self.failed_step(step.id, step.layers, step.stored)

    def failed_step(self, image_id: str, layers: Sequence[Descriptor], stored: int) -> Image:
        """What a failed step of a build has left as an image; its name is no reference. Raises CorruptObjectError."""
        config = ImageConfig.decode(self.blobs.read(image_id))
        return self._unstored(config, layers, created=stored, origin=image_id)

    def _unstored(self, config: ImageConfig, layers: Sequence[Descriptor], *, created: int, origin: str) -> Image:
        """An image as ``commit`` would make it."""
        encoded = config.encode()
        manifest = Manifest(Descriptor(CONFIG, digest_of(encoded), len(encoded)), tuple(layers))
        size = self._size(manifest, config)
        digest = digest_of(encode_manifest(manifest))
        return Image(manifest.config.digest, digest, (), created, manifest, config, size, origin=origin)

    def _until_steady(self) -> Iterator[Index]:
        """The index, and again as long as it has changed meanwhile: what is missing then may just have been removed."""
        index = read_index(self.root)
        yield index
        while True:
            again = read_index(self.root)
            if again.entries == index.entries:
                return
            yield again
            index = again

    def find(self, index: Index, name_or_id: str) -> Found:
        """The ID and the entries of an image, without reading what may be damaged. Raises as ``get``."""
        images = self.by_id(index)
        digest = f"sha256:{name_or_id}" if is_id(name_or_id) else name_or_id
        if digest in images:
            return Found(digest, images[digest])
        named = _by_name(index, name_or_id)
        for image_id, entries in images.items():
            if named and named[0] in entries:
                return Found(image_id, entries, named)
            if any(entry.digest == digest for entry in entries):
                return Found(image_id, entries)
        prefix = _PREFIX.fullmatch(name_or_id)
        matches = [i for i in images if prefix and i.startswith(f"sha256:{prefix[1]}")]
        if len(matches) > 1:
            raise NoSuchImageError(f"the image ID {name_or_id} is ambiguous", hint="give more of its digits")
        if matches:
            return Found(matches[0], images[matches[0]])
        raise NoSuchImageError(
            f"no such image: {name_or_id}",
            hint="see `minidock images`; make one with `minidock build` or `minidock image bootstrap busybox`",
        )

    def by_id(self, index: Index) -> dict[str, Entries]:
        """The entries of each image. The manifest's digest stands for the ID of an image whose manifest is damaged."""
        images: dict[str, Entries] = {}
        known: dict[str, str] = {}
        for entry in index.entries:
            if entry.digest not in known:
                known[entry.digest] = entry.config or self._config_digest(entry.digest)
            images.setdefault(known[entry.digest], []).append(entry)
        return images

    def _config_digest(self, manifest_digest: str) -> str:
        try:
            return decode_manifest(self.blobs.read(manifest_digest)).config.digest
        except MinidockError:
            return manifest_digest

    def _image(self, image_id: str, entries: Sequence[Entry], chosen: Entry | None = None) -> Image:
        names = tuple(sorted(entry.name for entry in entries if entry.name))
        latest = chosen or max(entries, key=lambda entry: entry.stored)
        manifest, config, size, error = Manifest(Descriptor("", "", 0), ()), ImageConfig.new(architecture=""), 0, ""
        try:
            manifest = decode_manifest(self.blobs.read(latest.digest))
            if manifest.config.digest != image_id:
                raise CorruptObjectError(f"the manifest {latest.digest} names another configuration than its entry")
            config = ImageConfig.decode(self.blobs.read(image_id))
            size = self._size(manifest, config)
        except MinidockError as failure:
            error = failure.message
        named = tuple(sorted({text for entry in entries for text in entry.repo_digests}))
        return Image(image_id, latest.digest, names, latest.stored, manifest, config, size, error, repo_digests=named)

    def _size(self, manifest: Manifest, config: ImageConfig) -> int:
        diff_ids = config.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise CorruptObjectError(f"{len(manifest.layers)} layers but {len(diff_ids)} diff IDs")
        return sum(self.layer_size(d, layer) for d, layer in zip(diff_ids, manifest.layers, strict=True))

    def layer_size(self, diff_id: str, layer: Descriptor) -> int:
        """The bytes of a layer's plain tarball; of its compressed form where only that is here."""
        if layer.media_type == LAYER_TAR or not self.blobs.has(diff_id):
            return layer.size
        return self.blobs.size(diff_id)


def tag_name(name: str) -> str:
    """The full reference under which an image is kept. Raises InvalidReferenceError, also for a name with a digest."""
    reference = parse_reference(name).tagged()
    if reference.digest:
        raise InvalidReferenceError(f"cannot tag an image as {name!r}: it names a digest", hint="use NAME[:TAG]")
    return reference.full()


def _by_name(index: Index, text: str) -> tuple[Entry, ...]:
    """The entries that a name means. Raises InvalidReferenceError for what is no name and no ID."""
    try:
        reference = parse_reference(text).tagged()
    except InvalidReferenceError:
        if _PREFIX.fullmatch(text):
            return ()
        raise
    full = reference.full()
    return tuple(
        entry
        for entry in index.entries
        if entry.name == full
        or (reference.digest and f"{reference.repository}@{reference.digest}" in entry.repo_digests)
        or (entry.name and entry.digest == reference.digest and _repository(entry.name) == reference.repository)
    )


def _repository(name: str) -> str:
    try:
        return parse_reference(name).repository
    except InvalidReferenceError:
        return name


def _check_layers(config: ImageConfig, layers: Sequence[Descriptor]) -> None:
    diff_ids = config.diff_ids
    if len(diff_ids) != len(layers):
        raise StoreError(f"the image has {len(layers)} layers but {len(diff_ids)} diff IDs")
    for diff_id, layer in zip(diff_ids, layers, strict=True):
        if layer.media_type == LAYER_TAR and layer.digest != diff_id:
            raise StoreError(f"the plain layer {layer.digest} stands where the configuration says {diff_id}")
    filled = sum(not entry.empty_layer for entry in config.history)
    if config.history and filled != len(diff_ids):
        raise StoreError(f"the image's history has {filled} layers but there are {len(diff_ids)} diff IDs")
