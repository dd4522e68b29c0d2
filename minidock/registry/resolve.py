"""From a name to one image: its manifest and configuration, of the platform that is wanted."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import CorruptObjectError, NoSuchImageError, RegistryError
from minidock.model.oci import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_TAR,
    DOCKER_LAYER_ZSTD,
    INDEX,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    ImageConfig,
    decode_manifest,
)
from minidock.model.platforms import Platform, platform_of, serves
from minidock.registry.answers import decode
from minidock.registry.repository import descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minidock.model.oci import Descriptor, Manifest
    from minidock.registry.repository import Repository, Served

_LAYERS = frozenset({LAYER_TAR, LAYER_GZIP, LAYER_ZSTD, DOCKER_LAYER_GZIP, DOCKER_LAYER_TAR, DOCKER_LAYER_ZSTD})
PLAIN_LAYERS = frozenset({LAYER_TAR, DOCKER_LAYER_TAR})
# More layers than overlayfs takes with all tricks.
_MAX_LAYERS = 1000
_MAX_DEPTH = 3
# An index may say anything; this is what is told to people.
_PLATFORM = re.compile(r"[A-Za-z0-9_.()/-]{1,100}")


class Resolved(NamedTuple):
    """An image as a registry has it: ``served`` is its manifest, ``config_data`` its configuration, both verbatim;
    ``digest`` is what the name means there: the manifest's, or that of the index which it was chosen from."""

    served: Served
    manifest: Manifest
    config: ImageConfig
    config_data: bytes
    digest: str


def resolve(repository: Repository, reference: str, platform: Platform) -> Resolved:
    """The image that a tag or digest means, of an index the one that serves ``platform``.

    Raises NoSuchImageError naming the platforms that there are, RegistryError, CorruptObjectError.
    """
    served = repository.manifest(reference)
    digest = served.descriptor.digest
    for _ in range(_MAX_DEPTH):
        if not served.is_index:
            return _image(repository, served, digest)
        chosen = _choose(repository, served, platform)
        served = repository.manifest(chosen.digest)
        if served.descriptor.size != chosen.size:
            raise RegistryError(f"cannot pull {repository.name}: a manifest is not of the size that its index says")
    raise RegistryError(f"cannot pull {repository.name}: there are indexes in indexes more than {_MAX_DEPTH} deep")


@contextmanager
def _named(repository: Repository) -> Iterator[None]:
    """Say of what is wrong whose it is."""
    try:
        yield
    except CorruptObjectError as error:
        raise CorruptObjectError(f"cannot pull {repository.name}: {error.message}", hint=error.hint) from None


def _image(repository: Repository, served: Served, digest: str) -> Resolved:
    with _named(repository):
        manifest = decode_manifest(served.data)
    if manifest.config.media_type not in (CONFIG, DOCKER_CONFIG):
        raise RegistryError(
            f"cannot pull {repository.name}: it is no image, but holds {manifest.config.media_type[:200]!r}"
        )
    if len(manifest.layers) > _MAX_LAYERS:
        raise RegistryError(f"cannot pull {repository.name}: it has {len(manifest.layers)} layers")
    for layer in manifest.layers:
        if layer.media_type not in _LAYERS:
            raise RegistryError(
                f"cannot pull {repository.name}: a layer is {layer.media_type[:200]!r}, which is not read",
                hint="layers are tar archives, plain or compressed with gzip or zstd, and not foreign ones",
            )
    data = repository.small_blob(manifest.config, what="the configuration")
    decode(data, what=f"cannot pull {repository.name}: the configuration")
    with _named(repository):
        config = ImageConfig.decode(data)
        _check_layers(manifest.layers, config.diff_ids)
    return Resolved(served, manifest, config, data, digest)


def _check_layers(layers: Sequence[Descriptor], diff_ids: Sequence[str]) -> None:
    """What can be told before anything is fetched. Raises CorruptObjectError."""
    if len(diff_ids) != len(layers):
        raise CorruptObjectError(
            f"its manifest has {len(layers)} layers, and its configuration speaks of {len(diff_ids)}"
        )
    known: dict[str, tuple[str, int]] = {}
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        if layer.media_type in PLAIN_LAYERS and layer.digest != diff_id:
            raise CorruptObjectError(f"the uncompressed layer {layer.digest} has another diff ID, {diff_id}")
        if known.setdefault(layer.digest, (diff_id, layer.size)) != (diff_id, layer.size):
            raise CorruptObjectError(f"the layer {layer.digest} is there twice, with two diff IDs or sizes")


def _choose(repository: Repository, index: Served, platform: Platform) -> Descriptor:
    there: list[str] = []
    serving: list[Descriptor] = []
    with _named(repository):
        entries = list(descriptors(index))
    for descriptor, fields in entries:
        own = platform_of(fields)
        if own is None or own.system == "unknown":
            continue
        if own._replace(version="") == platform._replace(version=""):
            return descriptor
        if serves(own, platform):
            serving.append(descriptor)
        there.append(own.text() if _PLATFORM.fullmatch(own.text()) else "one of no possible name")
    if serving:
        return serving[0]
    inner = [descriptor for descriptor, _ in entries if descriptor.media_type in (INDEX, DOCKER_INDEX)]
    if not there and inner:
        return inner[0]
    raise NoSuchImageError(
        f"{repository.name} is not there for {platform.text()}",
        hint=f"it is there for {', '.join(dict.fromkeys(there))}"[:300] if there else "it is there for no platform",
    )
