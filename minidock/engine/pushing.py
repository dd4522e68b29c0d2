"""``push``: an image of the store to a registry. What was pulled goes back bit for bit; what was built here is
compressed on its way, and the manifest that goes with that is the registry's, not the store's."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minidock.drivers.encoding import ENCODER, compress_gzip
from minidock.engine.pulling import registry_settings
from minidock.engine.transfers import Event, StoppedError, event_of, side_by_side
from minidock.errors import NoSuchImageError, StoreError, UsageError
from minidock.model.digest import digest_of
from minidock.model.oci import (
    CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    LAYER_GZIP,
    MANIFEST,
    Descriptor,
    Manifest,
    decode_manifest,
    decode_object,
    encode_manifest,
)
from minidock.model.reference import parse_reference
from minidock.registry.credentials import CredentialFiles
from minidock.registry.places import places
from minidock.registry.repository import Repository
from minidock.registry.resolve import PLAIN_LAYERS
from minidock.registry.retry import Patience
from minidock.registry.session import Session
from minidock.registry.upload import Upload
from minidock.store.files import hint_for
from minidock.store.images import Images
from minidock.store.index import changing
from minidock.store.staging import Staging
from minidock.store.wire import WireForm, WireForms

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from minidock.engine.base import EngineBase
    from minidock.model.reference import Reference
    from minidock.store.images import Image

# What a layer may be sent as, besides what is compressed here: every tool reads gzip, docker 20.10 no zstd.
_GZIP = frozenset({LAYER_GZIP, DOCKER_LAYER_GZIP})
# Of the repositories that have a layer, so many are asked to lend it.
_LENDERS = 3


class Pushed(NamedTuple):
    """What was sent: the full ``name``, the ``digest`` and ``size`` of the manifest there."""

    name: str
    digest: str
    size: int


def push(
    engine: EngineBase,
    name: str,
    *,
    all_tags: bool = False,
    tell: Callable[[Event], None] = lambda _: None,
    patience: Patience | None = None,
) -> list[Pushed]:
    """Send an image to the repository that its name says, or with ``all_tags`` every one of the repository's names.

    Layers that the repository has are not sent, those that another of the same registry has are mounted. Raises
    NoSuchImageError, RegistryError, UsageError, InvalidReferenceError.
    """
    reference = parse_reference(name)
    if reference.digest:
        raise UsageError(
            f"cannot push {name}: it is named by a digest", hint="give it a name with `minidock tag` first"
        )
    if all_tags and reference.tag:
        raise UsageError(f"{name} names one image, and --all-tags asks for all", hint="leave out the tag")
    images = Images(engine.ready())
    if all_tags:
        found = {text for image in images.list() for text in image.names}
        names = sorted(text for text in found if parse_reference(text).repository == reference.repository)
        if not names:
            raise NoSuchImageError(f"no image here has a name of {reference.familiar_repository}")
    else:
        names = [name]
    chosen = [(parse_reference(text).tagged(), images.get(text)) for text in names]
    with ExitStack() as stack:
        repository = _open(engine, reference, stack, patience or Patience())
        return [
            _Pusher(engine=engine, images=images, repository=repository, reference=own, image=image, tell=tell).push()
            for own, image in chosen
        ]


def _open(engine: EngineBase, reference: Reference, stack: ExitStack, patience: Patience) -> Repository:
    settings = registry_settings(engine)
    session = Session(
        places(reference.domain, settings)[-1],
        reference.path,
        actions="pull,push",
        credentials=partial(CredentialFiles(os.environ).find, reference.domain),
        certificates=settings.certificates,
        patience=patience,
        debug=engine.log.debug,
    )
    return Repository(stack.enter_context(session), reference.familiar_repository, reference.path)


class _Pusher:
    """Sends one image."""

    def __init__(
        self,
        *,
        engine: EngineBase,
        images: Images,
        repository: Repository,
        reference: Reference,
        image: Image,
        tell: Callable[[Event], None],
    ) -> None:
        self._images = images
        self._root = engine.ready()
        self._wire = WireForms(self._root)
        self._repository = repository
        self._upload = Upload(repository)
        self._reference = reference
        self._image = image
        self._tell_one = tell
        self._lock = threading.Lock()
        self._stopped = False

    def push(self) -> Pushed:
        image, blobs = self._image, self._images.blobs
        data = blobs.read(image.manifest_digest)
        manifest = decode_manifest(data)
        known = any(text.endswith(f"@{image.manifest_digest}") for text in image.repo_digests)
        verbatim = (known or not _has_plain(manifest)) and all(blobs.has(layer.digest) for layer in manifest.layers)
        with Staging(self._root, "push") as staging:
            staging.lean_on([*image.config.diff_ids, image.id, *(layer.digest for layer in manifest.layers)])
            pairs = list(zip(manifest.layers, image.config.diff_ids, strict=True))
            for _, diff_id in dict.fromkeys(pairs):
                self._tell(diff_id, "Preparing")
            different = list(dict.fromkeys(pairs))
            scratch = "" if verbatim else staging.path
            jobs = [partial(self._send_layer, layer, diff_id, scratch) for layer, diff_id in different]
            sent = dict(zip(different, side_by_side(jobs, self._stop), strict=True))
        layers = [sent[pair] for pair in pairs]
        config = Descriptor(manifest.config.media_type, image.id, blobs.size(image.id))
        self._send(config, partial(blobs.open, image.id))
        media_type = manifest.media_type if manifest.media_type in (MANIFEST, DOCKER_MANIFEST) else MANIFEST
        if not verbatim:
            config, media_type = config._replace(media_type=CONFIG), MANIFEST
            data = encode_manifest(Manifest(config, tuple(layers), annotations=_annotations(data)))
        self._upload.put_manifest(data, media_type, self._reference.tag)
        digest = digest_of(data)
        with changing(self._root) as index:
            index.add_repo_digests(image.manifest_digest, [f"{self._reference.repository}@{digest}"])
        return Pushed(self._reference.full(), digest, len(data))

    def _send_layer(self, layer: Descriptor, diff_id: str, scratch: str) -> Descriptor:
        """Have a layer in the repository, compressed by way of the directory ``scratch`` unless that is empty; what the
        manifest is to say of it."""
        if not scratch:
            return self._send_as_it_is(layer, diff_id)
        if layer.media_type in _GZIP and self._images.blobs.has(layer.digest):
            # One of the image that this one was built on, as its registry has it, in the words of an OCI manifest.
            return self._send_as_it_is(layer._replace(media_type=LAYER_GZIP), diff_id)
        return self._send_compressed(diff_id, scratch)

    def _stop(self) -> None:
        self._stopped = True

    def _send_as_it_is(self, layer: Descriptor, diff_id: str) -> Descriptor:
        form = WireForm(layer.media_type, layer.digest, layer.size, "")
        where = self._find(layer, self._wire.find(diff_id))
        self._tell(diff_id, where or self._send(layer, partial(self._images.blobs.open, layer.digest), diff_id))
        self._wire.note(diff_id, form, self._reference.repository)
        return layer

    def _send_compressed(self, diff_id: str, scratch: str) -> Descriptor:
        known = self._wire.find(diff_id)
        if known is not None and known.media_type in _GZIP:
            sent = Descriptor(LAYER_GZIP, known.digest, known.size)
            if where := self._find(sent, known):
                self._tell(diff_id, where)
                self._wire.note(diff_id, known, self._reference.repository)
                return sent
        path = Path(scratch, f"{diff_id.partition(':')[2]}.gz")
        try:
            with self._images.blobs.open(diff_id) as source, path.open("xb") as out:
                size = self._images.blobs.size(diff_id)
                encoded = compress_gzip(source, out, lambda done: self._tell(diff_id, "Compressing", done, size))
        except OSError as error:
            raise StoreError(f"cannot compress the layer {diff_id}: {error.strerror}", hint=hint_for(error)) from error
        sent = Descriptor(LAYER_GZIP, encoded.digest, encoded.size)

        def opened() -> BinaryIO:
            return path.open("rb")

        self._tell(diff_id, self._send(sent, opened, diff_id))
        path.unlink()
        form = WireForm(LAYER_GZIP, sent.digest, sent.size, ENCODER)
        self._wire.note(diff_id, form, self._reference.repository)
        return sent

    def _find(self, layer: Descriptor, known: WireForm | None) -> str:
        """How the repository has the layer: by itself, or now from another one of the registry; "" if it has not."""
        if self._upload.has(layer.digest):
            return "Layer already exists"
        if known is None or known.digest != layer.digest:
            return ""
        others = [parse_reference(text) for text in reversed(known.repositories)]
        own = self._reference
        lenders = [other.path for other in others if other.domain == own.domain and other.path != own.path]
        for path in lenders[:_LENDERS]:
            self._repository.session.allow(path)
            if self._upload.mount(layer.digest, path):
                return f"Mounted from {path}"
        return ""

    def _send(self, blob: Descriptor, opened: Callable[[], BinaryIO], diff_id: str = "") -> str:
        if self._upload.has(blob.digest):
            return "Layer already exists"
        self._upload.send(blob, opened, lambda done: self._tell(diff_id, "Pushing", done, blob.size))
        return "Pushed"

    def _tell(self, diff_id: str, state: str, done: int = 0, total: int = 0) -> None:
        if self._stopped:
            raise StoppedError
        if diff_id:
            with self._lock:
                self._tell_one(event_of(diff_id, state, done, total))


def _has_plain(manifest: Manifest) -> bool:
    """Whether a layer would be sent uncompressed, as no registry has given it."""
    return any(layer.media_type in PLAIN_LAYERS for layer in manifest.layers)


def _annotations(data: bytes) -> tuple[tuple[str, str], ...]:
    """What the manifest says besides; it goes along."""
    found = decode_object(data, what="image manifest").get("annotations")
    if not isinstance(found, dict):
        return ()
    return tuple((str(key), str(text)) for key, text in found.items())
