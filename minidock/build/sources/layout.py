"""An image in an OCI image layout of the host (``oci-layout://PATH``), taken into the store without a name there.

Formats: OCI image-spec, image-layout.md, image-index.md, manifest.md. Everything that a digest names is checked against
it; a layer must unpack to what the configuration says.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import CorruptObjectError, MinidockError, NoSuchImageError
from minidock.model.digest import digest_of, hex_of, is_digest
from minidock.model.oci import (
    INDEX,
    LAYER_TAR,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Manifest,
    decode_manifest,
    decode_object,
)
from minidock.model.platforms import parse_platform, platform_of, serves
from minidock.rootfs import Verified
from minidock.store.files import read_file
from minidock.store.images import Image

if TYPE_CHECKING:
    from minidock.rootfs import Rootfs
    from minidock.store.staging import Staging

# As large as registries accept them.
_MAX_JSON = 4 << 20
_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Place(NamedTuple):
    """``PATH``, ``PATH:TAG`` or ``PATH@DIGEST``."""

    path: str
    tag: str = ""
    digest: str = ""


def parse_place(text: str) -> Place:
    """Read what follows ``oci-layout://``. A path that exists is one, whatever it looks like."""
    if os.path.isdir(text):
        return Place(text)
    path, at, digest = text.rpartition("@")
    if at and is_digest(digest):
        return Place(path, digest=digest)
    path, colon, tag = text.rpartition(":")
    return Place(path, tag=tag) if colon and _TAG.fullmatch(tag) else Place(text)


def load_image(place: Place, *, platform: str, rootfs: Rootfs, staging: Staging) -> Image:
    """The image, whose layers are among the blobs as long as ``staging`` lasts.

    ``platform`` (``linux/amd64``) chooses among the images of an index. Raises NoSuchImageError if there is no such
    image, CorruptObjectError for a layout or image that is damaged, ArchiveError.
    """
    chosen = _choose(place, platform)
    manifest = decode_manifest(_blob(place, chosen))
    config = ImageConfig.decode(_blob(place, manifest.config))
    if len(config.diff_ids) != len(manifest.layers):
        raise CorruptObjectError(f"the image in {place.path} has other layers than its configuration says")
    layers = tuple(
        _layer(place, layer, diff_id, rootfs=rootfs, staging=staging)
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    )
    size = sum(layer.size for layer in layers)
    return Image(manifest.config.digest, chosen.digest, (), 0, Manifest(manifest.config, layers), config, size)


def _choose(place: Place, platform: str) -> Descriptor:
    try:
        data = read_file(f"{place.path}/index.json", limit=_MAX_JSON)
    except OSError as error:
        raise NoSuchImageError(
            f"cannot read the OCI layout {place.path!r}: {error.strerror}",
            hint="the form is oci-layout://PATH[:TAG|@DIGEST], where PATH holds index.json and blobs",
        ) from None
    found = _descriptors(data, place)
    if place.digest:
        # It may be in an index that the layout's own names.
        named = [entry for entry in found if entry.digest == place.digest] or [Descriptor("", place.digest, -1)]
    else:
        named = [entry for entry in found if _tag_of(entry) == (place.tag or "latest")]
        if not named and not place.tag and len(found) == 1:
            named = found
    if not named:
        tags = ", ".join(sorted(filter(None, map(_tag_of, found)))) or "none has a name"
        what = f"no image {place.tag!r}" if place.tag else f"{len(found)} images and none called 'latest'"
        raise NoSuchImageError(f"the OCI layout {place.path!r} has {what}", hint=f"it has: {tags}"[:300])
    chosen = named[0]
    if chosen.media_type in (INDEX, _DOCKER_INDEX) or chosen.size < 0:
        return _of_platform(place, chosen, platform)
    return chosen


def _of_platform(place: Place, index: Descriptor, platform: str) -> Descriptor:
    data = _blob(place, index)
    value = decode_object(data, what="image index")
    if "manifests" not in value:
        return index._replace(size=len(data))
    asked = parse_platform(platform, host=platform)
    serving: dict[tuple[bool, str], Descriptor] = {}
    for child, descriptor in zip(value["manifests"], _descriptors(data, place), strict=True):
        wanted = child.get("platform")
        own = platform_of(wanted) if isinstance(wanted, dict) else None
        if own == asked:
            return descriptor
        if own is not None and serves(own, asked):
            # Rather the same architecture, and the newest variant.
            serving.setdefault((own.architecture == asked.architecture, own.variant), descriptor)
    if serving:
        return serving[max(serving)]
    raise NoSuchImageError(f"the image in the OCI layout {place.path!r} is not there for {platform}")


def _descriptors(data: bytes, place: Place) -> list[Descriptor]:
    manifests = decode_object(data, what="image index").get("manifests")
    if not isinstance(manifests, list):
        raise CorruptObjectError(f"an index of the OCI layout {place.path!r} has no list of manifests")
    return [Descriptor.from_json(value) for value in manifests]


def _tag_of(descriptor: Descriptor) -> str:
    """The tag of ``ref.name``, which some write alone and some as a whole reference."""
    name = dict(descriptor.annotations).get(REF_NAME, "")
    return name.partition("@")[0].rpartition("/")[2].rpartition(":")[2]


def _blob(place: Place, descriptor: Descriptor) -> bytes:
    path = _blob_path(place, descriptor)
    try:
        data = read_file(path, limit=_MAX_JSON)
    except OSError as error:
        raise CorruptObjectError(f"cannot read {path}: {error.strerror}") from None
    if digest_of(data) != descriptor.digest:
        raise CorruptObjectError(f"{path} is damaged: its content has another digest")
    return data


def _blob_path(place: Place, descriptor: Descriptor) -> str:
    return f"{place.path}/blobs/sha256/{hex_of(descriptor.digest)}"


def _layer(place: Place, layer: Descriptor, diff_id: str, *, rootfs: Rootfs, staging: Staging) -> Descriptor:
    staging.lean_on([diff_id])
    if rootfs.blobs.has(diff_id):
        return Descriptor(LAYER_TAR, diff_id, rootfs.blobs.size(diff_id))
    path = _blob_path(place, layer)
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, _READ)) as file:
            stream = Verified(file, layer.digest)
            found = rootfs.import_layer(stream, staging)
            while stream.read(1 << 20):
                continue
    except OSError as error:
        raise MinidockError(f"cannot read the layer {path}: {error.strerror}") from None
    if found.digest != diff_id:
        raise CorruptObjectError(f"the layer {layer.digest} in {place.path} is not the one that its image says")
    return found
