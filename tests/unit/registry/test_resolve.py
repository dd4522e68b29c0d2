"""From a name to one image of one platform, and what can be told of it before anything large is fetched."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from minidock.errors import CorruptObjectError, NoSuchImageError, RegistryError
from minidock.model.digest import digest_of
from minidock.model.oci import CONFIG, INDEX, LAYER_GZIP, LAYER_TAR, MANIFEST, Descriptor
from minidock.model.platforms import Platform, parse_platform
from minidock.registry.repository import Served
from minidock.registry.resolve import resolve

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")
AMD = "linux/amd64"


class Shelf:
    """Stands in for a repository: manifests and configurations by digest, ``top`` under the tag ``1``."""

    name = "a.test/b"

    def __init__(self) -> None:
        self.data: dict[str, tuple[str, bytes]] = {}
        self.session = SimpleNamespace(place=SimpleNamespace(host="a.test"))

    def add(self, value: Any, media_type: str) -> dict[str, Any]:
        data = json.dumps(value).encode()
        self.data[digest_of(data)] = self.data["1"] = media_type, data
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def image(self, platform: str = AMD, layers: Any = ((LAYER_GZIP, ONE, TWO),)) -> dict[str, Any]:
        system, architecture, *variant = platform.split("/")
        fields = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        rootfs = {"type": "layers", "diff_ids": [diff_id for _, _, diff_id in layers]}
        config = self.add({**fields, "rootfs": rootfs}, CONFIG)
        descriptors = [{"mediaType": kind, "digest": digest, "size": 5} for kind, digest, _ in layers]
        manifest = self.add({"schemaVersion": 2, "config": config, "layers": descriptors}, MANIFEST)
        return {**manifest, "platform": fields}

    def index(self, *entries: dict[str, Any]) -> dict[str, Any]:
        return self.add({"schemaVersion": 2, "manifests": entries}, INDEX)

    def manifest(self, reference: str) -> Served:
        media_type, data = self.data[reference]
        return Served(Descriptor(media_type, digest_of(data), len(data)), data)

    def small_blob(self, descriptor: Descriptor, *, what: str) -> bytes:
        assert what == "the configuration"
        return self.data[descriptor.digest][1]

    def resolve(self, platform: str = AMD) -> Any:
        return resolve(self, "1", parse_platform(platform, host=AMD))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("there", "asked", "chosen"),
    [
        (("linux/arm64", "linux/amd64"), "linux/amd64", 1),
        (("linux/amd64", "linux/amd64"), "linux/amd64", 0),
        (("linux/386", "linux/amd64"), "linux/amd64", 1),
        (("linux/386", "linux/arm64"), "linux/amd64", 0),
        (("linux/arm/v6", "linux/arm/v7"), "linux/arm/v7", 1),
        (("linux/arm/v6", "linux/arm64"), "linux/arm/v7", 0),
        (("linux/arm/v7", "linux/arm64/v8"), "linux/arm64", 1),
        (("unknown/unknown", "linux/amd64"), "linux/amd64", 1),
        (("windows/amd64", "linux/amd64"), "linux/amd64", 1),
    ],
)
def test_the_entry_that_serves(there: tuple[str, ...], asked: str, chosen: int) -> None:
    shelf = Shelf()
    layers = [((LAYER_GZIP, ONE, f"sha256:{number:064}"),) for number in range(len(there))]
    entries = [shelf.image(platform, own) for platform, own in zip(there, layers, strict=True)]
    index = shelf.index(*entries)
    found = shelf.resolve(asked)
    assert found.served.descriptor.digest == entries[chosen]["digest"]
    assert found.digest == index["digest"]


def test_a_platform_that_is_missing() -> None:
    shelf = Shelf()
    shelf.index(shelf.image("linux/arm64"), shelf.image("linux/arm64"), shelf.image("unknown/unknown"))
    with pytest.raises(NoSuchImageError, match=r"a.test/b is not there for linux/amd64") as caught:
        shelf.resolve()
    assert caught.value.hint == "it is there for linux/arm64"


def test_an_index_of_nothing() -> None:
    shelf = Shelf()
    shelf.index()
    with pytest.raises(NoSuchImageError) as caught:
        shelf.resolve()
    assert caught.value.hint == "it is there for no platform"


def test_an_index_in_an_index() -> None:
    shelf = Shelf()
    image = shelf.image()
    shelf.index(shelf.index(image))
    assert shelf.resolve().served.descriptor.digest == image["digest"]
    shelf.index(shelf.index(shelf.index(image)))
    with pytest.raises(RegistryError, match="more than 3 deep"):
        shelf.resolve()


def test_an_index_that_lies_of_a_size() -> None:
    shelf = Shelf()
    shelf.index({**shelf.image(), "size": 7})
    with pytest.raises(RegistryError, match="a manifest is not of the size that its index says"):
        shelf.resolve()


@pytest.mark.parametrize("entry", [5, [], {}, {"mediaType": MANIFEST, "digest": "sha256:../x", "size": 1}])
def test_entries_that_are_none(entry: Any) -> None:
    shelf = Shelf()
    shelf.index(entry)
    with pytest.raises(CorruptObjectError, match=r"^cannot pull a.test/b: a content descriptor"):
        shelf.resolve()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (((LAYER_TAR, ONE, TWO),), "the uncompressed layer .* has another diff ID"),
        (((LAYER_GZIP, ONE, ONE), (LAYER_GZIP, ONE, TWO)), "is there twice, with two diff IDs or sizes"),
    ],
)
def test_layers_that_cannot_be(layers: Any, message: str) -> None:
    shelf = Shelf()
    shelf.image(layers=layers)
    with pytest.raises(CorruptObjectError, match=message):
        shelf.resolve()


def test_layers_that_can() -> None:
    shelf = Shelf()
    shelf.image(layers=((LAYER_TAR, ONE, ONE), (LAYER_GZIP, TWO, TWO), (LAYER_TAR, ONE, ONE)))
    assert shelf.resolve().config.diff_ids == (ONE, TWO, ONE)
    assert Platform("linux", "amd64").text() == AMD
