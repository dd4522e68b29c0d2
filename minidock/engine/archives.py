"""Images as archives: an OCI image layout in a tar, for docker with the table of contents that ``docker load`` reads.

Sources: OCI image-spec, image-layout.md and annotations.md; moby, image/spec/spec.md ("Combined Image JSON and
Filesystem Changeset Format"). The same image gives the same bytes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from minidock.drivers.pack import pack
from minidock.drivers.tar_format import DIRECTORY, Entry
from minidock.drivers.tar_writer import TarWriter
from minidock.model.digest import digest_of, hex_of
from minidock.model.oci import (
    CONFIG,
    INDEX,
    LAYER_TAR,
    MANIFEST,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Manifest,
    encode_json,
    encode_manifest,
)
from minidock.model.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.engine.provenance import Attested
    from minidock.store.blobs import Blobs

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
# Where containerd and docker look for the whole name.
_CONTAINERD_NAME = "io.containerd.image.name"


class Encoded(NamedTuple):
    """An image as bytes: its configuration, its manifest, and the layers that the manifest names."""

    config: bytes
    manifest: bytes
    layers: tuple[Descriptor, ...]
    platform: dict[str, str]

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(MANIFEST, digest_of(self.manifest), len(self.manifest))


def encode_image(
    config: ImageConfig, layers: Sequence[Descriptor], *, annotations: tuple[tuple[str, str], ...] = ()
) -> Encoded:
    """The bytes that ``Images.commit`` would store."""
    data = config.encode()
    manifest = Manifest(Descriptor(CONFIG, digest_of(data), len(data)), tuple(layers), annotations=annotations)
    platform = {key: str(config.raw[key]) for key in ("architecture", "os", "variant") if config.raw.get(key)}
    return Encoded(data, encode_manifest(manifest), tuple(layers), platform)


def plain_layers(config: ImageConfig, blobs: Blobs) -> tuple[Descriptor, ...]:
    """The layers as plain tarballs, which every reader of docker's archives takes. Raises CorruptObjectError."""
    return tuple(Descriptor(LAYER_TAR, diff_id, blobs.size(diff_id)) for diff_id in config.diff_ids)


def write_image_archive(
    out: BinaryIO,
    image: Encoded,
    blobs: Blobs,
    *,
    names: Sequence[str],
    annotations: tuple[tuple[str, str], ...] = (),
    for_docker: bool = False,
    attested: Attested | None = None,
) -> None:
    """Write an OCI archive of one image to ``out``, which is unbuffered; ``annotations`` are the index's.

    ``for_docker`` adds ``manifest.json``. With an attestation the names mean an index of both. Raises
    CorruptObjectError for a blob that is missing, ArchiveError, OSError.
    """
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX}
    held = {digest_of(data): data for data in (image.config, image.manifest)}
    if attested is None:
        index["manifests"] = _entries({**image.descriptor.to_json(), "platform": image.platform}, names)
        index |= {"annotations": dict(annotations)} if annotations else {}
    else:
        inner = attested.index_with(image.descriptor, image.platform, annotations)
        held |= {digest_of(data): data for data in (*attested.blobs, inner)}
        index["manifests"] = _entries(Descriptor(INDEX, digest_of(inner), len(inner)).to_json(), names)
    sizes = {layer.digest: layer.size for layer in image.layers} | {key: len(data) for key, data in held.items()}
    writer = TarWriter(out)
    writer.add(Entry("blobs", DIRECTORY, 0o755))
    writer.add(Entry("blobs/sha256", DIRECTORY, 0o755))
    for digest in sorted(sizes):
        entry = Entry(f"blobs/sha256/{hex_of(digest)}", size=sizes[digest])
        if digest in held:
            writer.add_bytes(entry, held[digest])
        else:
            with blobs.open(digest) as file:
                writer.add_file(entry, file.fileno())
    _add(writer, "index.json", encode_json(index))
    if for_docker:
        _add(writer, "manifest.json", encode_json([_docker_manifest(image, names)]))
    _add(writer, "oci-layout", _LAYOUT)
    writer.finish()


def write_tree_archive(out: BinaryIO, root_fd: int) -> None:
    """Write a root file system to ``out``, which is unbuffered, as one tar. Raises ArchiveError, OSError."""
    pack(root_fd, -1, out, copied=True, normalise=False)


def write_empty_archive(out: BinaryIO) -> None:
    """Write a tar without entries: what an image without layers is."""
    TarWriter(out).finish()


def _entries(plain: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """The index's entries for a descriptor: one for each name, as image-layout.md has it, or one without."""
    if not names:
        return [plain]
    return [{**plain, "annotations": {_CONTAINERD_NAME: name, REF_NAME: name}} for name in names]


def _docker_manifest(image: Encoded, names: Sequence[str]) -> dict[str, Any]:
    return {
        "Config": _blob(digest_of(image.config)),
        "RepoTags": [parse_reference(name).familiar() for name in names] or None,
        "Layers": [_blob(layer.digest) for layer in image.layers],
    }


def _blob(digest: str) -> str:
    return os.path.join("blobs", "sha256", hex_of(digest))


def _add(writer: TarWriter, name: str, data: bytes) -> None:
    writer.add_bytes(Entry(name, size=len(data)), data)
