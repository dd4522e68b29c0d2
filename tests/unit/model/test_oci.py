"""Manifests and configurations: codecs, what they refuse, and what they keep."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidock.errors import CorruptObjectError
from minidock.model import oci

# The machine may be busy: how long an example takes says nothing.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
DESCRIPTOR = {"mediaType": oci.LAYER_TAR, "digest": DIGEST, "size": 3}


def test_descriptors_go_round() -> None:
    for pairs in ((), (("a", "b"), ("c", ""))):
        found = oci.Descriptor(oci.LAYER_TAR, DIGEST, 3, pairs)
        assert oci.Descriptor.from_json(found.to_json()) == found
    assert oci.Descriptor.from_json(DESCRIPTOR | {"annotations": None}).annotations == ()
    assert "annotations" not in oci.Descriptor(oci.LAYER_TAR, DIGEST, 3).to_json()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mediaType": None}, "no valid media type and digest"),
        ({"digest": 1}, "no valid media type and digest"),
        ({"digest": "sha256:../../x"}, "no valid media type and digest"),
        ({"size": -1}, "no valid size"),
        ({"size": True}, "no valid size"),
        ({"size": "3"}, "no valid size"),
        ({"size": 1.5}, "no valid size"),
        ({"annotations": ["a"]}, "annotations"),
        ({"annotations": {"a": 1}}, "annotations"),
    ],
)
def test_bad_descriptors(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(CorruptObjectError, match=reason):
        oci.Descriptor.from_json(DESCRIPTOR | change)


def test_a_descriptor_is_an_object() -> None:
    with pytest.raises(CorruptObjectError, match="not a JSON object"):
        oci.Descriptor.from_json([DESCRIPTOR])


def test_manifests_go_round() -> None:
    manifest = oci.Manifest(oci.Descriptor(oci.CONFIG, OTHER, 2), (oci.Descriptor(oci.LAYER_TAR, DIGEST, 3),))
    data = oci.encode_manifest(manifest)
    assert oci.decode_manifest(data) == manifest
    assert data.startswith(b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{')
    raw = json.loads(data)
    del raw["mediaType"]
    assert oci.decode_manifest(json.dumps(raw).encode()).media_type == oci.MANIFEST
    raw["mediaType"] = oci.DOCKER_MANIFEST
    assert oci.decode_manifest(json.dumps(raw).encode()).media_type == oci.DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "not valid JSON"),
        (b"{}", "schema version 2"),
        (b'{"schemaVersion":1,"layers":[]}', "schema version 2"),
        (b'{"schemaVersion":2,"layers":{}}', "schema version 2"),
        (b'{"schemaVersion":2,"layers":[],"manifests":[]}', "schema version 2"),
        (b'{"schemaVersion":2,"layers":[]}', "content descriptor"),
        (json.dumps({"schemaVersion": 2, "layers": [1], "config": DESCRIPTOR}).encode(), "content descriptor"),
    ],
)
def test_bad_manifests(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptObjectError, match=reason):
        oci.decode_manifest(data)


def test_a_new_configuration_has_nothing() -> None:
    found = oci.ImageConfig.new(architecture="amd64")
    assert (found.architecture, found.created, found.diff_ids, found.history, found.config) == ("amd64", "", (), (), {})
    assert oci.ImageConfig.decode(found.encode()).raw == found.raw


def test_layers_and_history_stay_in_step() -> None:
    found = oci.ImageConfig.new(architecture="arm64")
    found.add_layer(DIGEST, oci.History(created="now", created_by="RUN x", comment="c", author="a"))
    found.add_layer(None, oci.History(created_by="ENV a=b"))
    found.raw["history"].append({})
    assert found.diff_ids == (DIGEST,)
    assert found.history == (
        oci.History("now", "RUN x", "c", "a"),
        oci.History(created_by="ENV a=b", empty_layer=True),
        oci.History(),
    )
    assert len([entry for entry in found.history[:2] if not entry.empty_layer]) == len(found.diff_ids)
    assert found.raw["history"][1] == {"created_by": "ENV a=b", "empty_layer": True}


def test_a_configuration_without_history_gets_one() -> None:
    found = oci.ImageConfig.decode(b'{"history":null}')
    assert found.history == ()
    found.add_layer(None, oci.History(created_by="x"))
    assert len(found.history) == 1


def test_a_configuration_without_config_gets_one() -> None:
    found = oci.ImageConfig.decode(b'{"config":null,"created":"then"}')
    found.config["Env"] = ["a=b"]
    assert json.loads(found.encode())["config"] == {"Env": ["a=b"]}
    assert found.created == "then"


def test_unknown_fields_survive_and_copies_are_independent() -> None:
    data = b'{"x.future":{"a":[1]},"config":{"New":"\xc3\xa9"},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}'
    found = oci.ImageConfig.decode(data)
    assert found.encode() == data
    copy = found.copy()
    copy.config["New"] = "changed"
    copy.add_layer(DIGEST, oci.History())
    assert found.encode() == data


@pytest.mark.parametrize(
    "raw",
    [
        {"rootfs": None},
        {"rootfs": []},
        {"rootfs": {}},
        {"rootfs": {"diff_ids": "x"}},
        {"rootfs": {"diff_ids": [1]}},
        {"rootfs": {"diff_ids": ["sha256:x"]}},
        {"config": [1]},
        {"config": "x"},
        {"history": {"a": 1}},
    ],
)
def test_bad_configurations(raw: dict[str, Any]) -> None:
    with pytest.raises(CorruptObjectError):
        oci.ImageConfig.decode(json.dumps(raw).encode())


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(st.characters(exclude_categories=["Cs"]))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["rootfs", "history", "config", "layers", "schemaVersion", "x"]), JSON))
@CALM
def test_any_object_decodes_or_is_corrupt(raw: dict[str, Any]) -> None:
    data = oci.encode_json(raw)
    decoders: tuple[Callable[[bytes], object], ...] = (oci.ImageConfig.decode, oci.decode_manifest)
    for decode in decoders:
        with contextlib.suppress(CorruptObjectError):
            assert decode(data)


def test_json_has_one_form() -> None:
    assert oci.encode_json({"b": [1, "é"], "a": None}) == '{"b":[1,"é"],"a":null}'.encode()
