"""OCI image manifests and configurations (image-spec 1.1) and their docker 2.2 twins: values and codecs.

Manifest bytes are never made again from a parsed value: what was pulled or built is kept verbatim.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from minidock.errors import CorruptObjectError
from minidock.model.digest import is_digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"

REF_NAME = "org.opencontainers.image.ref.name"


class Descriptor(NamedTuple):
    """A content descriptor: ``size`` in bytes, ``annotations`` as pairs."""

    media_type: str
    digest: str
    size: int
    annotations: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value

    @classmethod
    def from_json(cls, value: object) -> Descriptor:
        """Read a descriptor; raise CorruptObjectError for anything that is not one."""
        if not isinstance(value, dict):
            raise CorruptObjectError("a content descriptor is not a JSON object")
        media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
        if not isinstance(media_type, str) or not isinstance(digest, str) or not is_digest(digest):
            raise CorruptObjectError(f"a content descriptor has no valid media type and digest: {str(value)[:200]}")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise CorruptObjectError(f"the content descriptor of {digest} has no valid size")
        annotations = value.get("annotations") or {}
        if not isinstance(annotations, dict) or not all(isinstance(v, str) for v in annotations.values()):
            raise CorruptObjectError(f"the annotations of {digest} are not strings")
        return cls(media_type, digest, size, tuple(annotations.items()))


class Manifest(NamedTuple):
    """An image manifest: its configuration and its layers, lowest first; ``annotations`` as pairs."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = MANIFEST
    annotations: tuple[tuple[str, str], ...] = ()


class History(NamedTuple):
    """One line of an image's history; ``empty_layer`` entries have no layer."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            key: text
            for key, text in (
                ("created", self.created),
                ("created_by", self.created_by),
                ("comment", self.comment),
                ("author", self.author),
            )
            if text
        }
        if self.empty_layer:
            value["empty_layer"] = True
        return value


class ImageConfig:
    """An image configuration: a mutable view of its JSON object in which fields that minidock does not know survive.

    ``config`` is the object that docker calls ``Config``: ``Env``, ``Cmd``, ``Entrypoint``, ``User``, ``WorkingDir``,
    ``Labels``, ``Volumes``, ``ExposedPorts``, ``StopSignal``, ``Shell``, ``Healthcheck``, ``OnBuild``.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    @classmethod
    def new(cls, *, architecture: str, os: str = "linux") -> ImageConfig:
        """The configuration of an image without layers (``FROM scratch``)."""
        return cls(
            {
                "architecture": architecture,
                "os": os,
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": []},
                "history": [],
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> ImageConfig:
        """Read a configuration; raise CorruptObjectError if it is not one."""
        raw = decode_object(data, what="image configuration")
        rootfs = raw.setdefault("rootfs", {"type": "layers", "diff_ids": []})
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(diff_ids, list) or not all(isinstance(d, str) and is_digest(d) for d in diff_ids):
            raise CorruptObjectError("the image configuration has no valid list of diff IDs")
        history = raw.get("history") or []
        if not isinstance(raw.get("config") or {}, dict) or not isinstance(history, list):
            raise CorruptObjectError("the image configuration's config or history has the wrong type")
        if not all(isinstance(entry, dict) for entry in history):
            raise CorruptObjectError("the image configuration's history holds something that is not an object")
        return cls(raw)

    def encode(self) -> bytes:
        return encode_json(self.raw)

    def copy(self) -> ImageConfig:
        """An independent copy."""
        return ImageConfig(json.loads(json.dumps(self.raw)))

    @property
    def config(self) -> dict[str, Any]:
        value = self.raw.get("config")
        if not isinstance(value, dict):
            value = self.raw["config"] = {}
        return value

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The layers' diff IDs, lowest first."""
        return tuple(self.raw["rootfs"]["diff_ids"])

    @property
    def history(self) -> tuple[History, ...]:
        return tuple(
            History(
                created=str(entry.get("created", "")),
                created_by=str(entry.get("created_by", "")),
                comment=str(entry.get("comment", "")),
                author=str(entry.get("author", "")),
                empty_layer=bool(entry.get("empty_layer", False)),
            )
            for entry in self.raw.get("history") or []
        )

    @property
    def architecture(self) -> str:
        return str(self.raw.get("architecture", ""))

    @property
    def created(self) -> str:
        return str(self.raw.get("created", ""))

    def add_layer(self, diff_id: str | None, history: History) -> None:
        """Append a history entry, and the layer that it made unless ``diff_id`` is None (then it is an empty one)."""
        if diff_id is not None:
            self.raw["rootfs"]["diff_ids"].append(diff_id)
        entry = history._replace(empty_layer=diff_id is None).to_json()
        if not isinstance(self.raw.get("history"), list):
            self.raw["history"] = []
        self.raw["history"].append(entry)


def encode_json(value: Any) -> bytes:
    """The one way JSON that is content-addressed is written: compact, UTF-8, keys in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def decode_object(data: bytes, *, what: str) -> dict[str, Any]:
    """Read a JSON object; raise CorruptObjectError naming ``what`` for anything else, however it is broken."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptObjectError(f"the {what} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise CorruptObjectError(f"the {what} is not a JSON object")
    return value


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest that is made here."""
    return encode_json(
        {
            "schemaVersion": 2,
            "mediaType": manifest.media_type,
            "config": manifest.config.to_json(),
            "layers": [layer.to_json() for layer in manifest.layers],
            **({"annotations": dict(manifest.annotations)} if manifest.annotations else {}),
        }
    )


def decode_manifest(data: bytes) -> Manifest:
    """Read an image manifest of either kind; raise CorruptObjectError if it is not one.

    An object that holds both ``manifests`` and ``layers`` is refused (CVE-2021-41190).
    """
    raw = decode_object(data, what="image manifest")
    if raw.get("schemaVersion") != 2 or "manifests" in raw or not isinstance(raw.get("layers"), list):
        raise CorruptObjectError("the image manifest is not one of schema version 2 with layers")
    return Manifest(
        config=Descriptor.from_json(raw.get("config")),
        layers=tuple(Descriptor.from_json(layer) for layer in raw["layers"]),
        media_type=str(raw.get("mediaType") or MANIFEST),
    )
