"""Provenance: what is attested, where it lies beside the image, and that no secret is in it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock import __version__

DOCKERFILE = """FROM busybox AS tools
FROM tools
ARG KEY
RUN --mount=type=secret,id=token test -s /run/secrets/token && echo done > /made
"""


@pytest.fixture
def folder(context: Callable[..., Path]) -> Path:
    made = context(DOCKERFILE)
    (made.parent / "token").write_text("hush-hush")
    return made


def flags(folder: Path) -> list[str]:
    secret = f"id=token,src={folder.parent}/token"
    return ["--secret", secret, "--build-arg", "KEY=value-of-key", "--build-arg", "HTTP_PROXY=http://u:pass-word@p"]


def read(archive: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The index of an OCI archive, and its blobs by digest."""
    with tarfile.open(archive) as tar:
        held = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        found = {name: file.read() for name, file in held.items() if file is not None}
    blobs = {f"sha256:{Path(name).name}": data for name, data in found.items() if name.startswith("blobs/")}
    index: dict[str, Any] = json.loads(found["index.json"])
    return index, blobs


def test_an_archive_holds_the_attestation_beside_the_image(minidock: Any, folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "out.tar"
    minidock.build(folder, "-t", "plain", *flags(folder))
    minidock.build(
        folder, "-t", "with", "--provenance=mode=max", "-o", f"type=oci,dest={archive}", "--load", *flags(folder)
    )
    assert minidock.inspect("with")["Id"] == minidock.inspect("plain")["Id"], "the image is the same"
    outer, blobs = read(archive)
    (entry,) = outer["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "docker.io/library/with:latest"
    image, attestation = json.loads(blobs[entry["digest"]])["manifests"]
    assert image["platform"]["os"] == "linux"
    assert attestation["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert attestation["annotations"] == {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    manifest = json.loads(blobs[attestation["digest"]])
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.in-toto+json"
    assert layer["annotations"] == {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}
    assert json.loads(blobs[manifest["config"]["digest"]])["rootfs"]["diff_ids"] == [layer["digest"]]
    statement = json.loads(blobs[layer["digest"]])
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"][0]["digest"] == {"sha256": image["digest"][7:]}
    assert statement["subject"][0]["name"].startswith("pkg:docker/with@latest?platform=linux%2F")
    check_whole(statement["predicate"])
    for secret in (b"hush-hush", b"pass-word"):
        assert not [digest for digest, data in blobs.items() if secret in data]
    if shutil.which("skopeo"):
        config = subprocess.run(
            ["skopeo", "inspect", "--config", f"oci-archive:{archive}"], check=True, capture_output=True, text=True
        )
        assert json.loads(config.stdout)["rootfs"]["diff_ids"] == minidock.inspect("with")["RootFS"]["Layers"]


def check_whole(predicate: Any) -> None:
    """mode=max: the arguments, the secrets by their names, the Dockerfile."""
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    request = definition["externalParameters"]["request"]
    assert request["args"] == {"build-arg:KEY": "value-of-key"}
    assert request["secrets"] == [{"id": "token", "optional": True}]
    assert request["locals"] == [{"name": "context"}, {"name": "dockerfile"}]
    assert definition["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    (base,) = definition["resolvedDependencies"]
    assert base["uri"].startswith("pkg:docker/busybox@latest?platform=linux%2F")
    assert len(base["digest"]["sha256"]) == 64
    assert details["builder"] == {"id": "", "version": {"minidock": __version__}}
    metadata = details["metadata"]
    assert metadata["startedOn"] <= metadata["finishedOn"]
    assert metadata["buildkit_completeness"]["request"] is True
    (info,) = metadata["buildkit_metadata"]["source"]["infos"]
    assert base64.b64decode(info["data"]).decode() == DOCKERFILE


def test_the_small_form_has_no_values_of_arguments(minidock: Any, folder: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "metadata.json"
    told = minidock.build(folder, "--provenance=true", "--metadata-file", str(metadata), *flags(folder))
    assert "kept nowhere" not in told
    found = json.loads(metadata.read_text())["buildx.build.provenance"]
    request = found["buildDefinition"]["externalParameters"]["request"]
    assert request == {"frontend": "dockerfile.v0", "args": {}, "locals": [{"name": "context"}, {"name": "dockerfile"}]}
    assert found["runDetails"]["metadata"]["buildkit_completeness"]["request"] is False
    assert "buildkit_metadata" not in found["runDetails"]["metadata"]
    assert "value-of-key" not in metadata.read_text()
    assert "token" not in metadata.read_text()


def test_a_folder_has_it_as_a_file(minidock: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    folder = context("FROM scratch\nCOPY a /\n", {"a": "A"})
    minidock.build(folder, "--attest", "type=provenance,builder-id=https://ci/7", "-o", str(tmp_path / "out"))
    statement = json.loads((tmp_path / "out/provenance.json").read_text())
    assert statement["predicate"]["runDetails"]["builder"]["id"] == "https://ci/7"
    folder = context("FROM scratch\nCOPY a /provenance.json\n", {"a": "A"})
    told = minidock.build(folder, "--provenance=1", "-o", str(tmp_path / "other"), status=1)
    assert "the image has a provenance.json of its own" in told
    assert not (tmp_path / "other").exists()


def test_it_is_off_unless_asked_for_and_says_where_it_would_be_lost(
    minidock: Any, context: Callable[..., Path], tmp_path: Path
) -> None:
    folder = context("FROM scratch\nCOPY a /\n", {"a": "A"})
    for name, more in (("one", []), ("two", ["--provenance=false", "--sbom=false"])):
        minidock.build(folder, *more, "-o", f"type=oci,dest={tmp_path}/{name}")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert b"in-toto" not in (tmp_path / "one").read_bytes()
    assert "the attestation is kept nowhere: give --metadata-file" in minidock.build(folder, "--provenance=true")
    assert "(sbom) is not made by minidock" in minidock.build(folder, "--sbom=true", status=125)
