"""The store as skopeo and umoci see it: an OCI image layout, read (and written) where it lies."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from minidock.model.oci import LAYER_TAR, Descriptor, History, ImageConfig
from minidock.store.blobs import Blobs
from minidock.store.images import Image, Images
from minidock.store.layout import DataRoot
from minidock.store.removal import remove

NAME = "docker.io/library/app:v1"

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (apt install skopeo)")
needs_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed (apt install umoci)")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def layer(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def commit(root: DataRoot, *layers: Mapping[str, bytes], name: str = NAME) -> Image:
    config = ImageConfig.new(architecture="amd64")
    config.config["Env"] = ["A=b"]
    descriptors = []
    for files in layers:
        data = layer(files)
        digest = Blobs(root).put(data)
        config.add_layer(digest, History(created="2024-01-01T00:00:00Z", created_by="COPY"))
        descriptors.append(Descriptor(LAYER_TAR, digest, len(data)))
    return Images(root).commit(config, descriptors, names=[name])


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    return root


@needs_skopeo
def test_skopeo_inspects_each_image_by_its_full_name(root: DataRoot) -> None:
    image = commit(root, {"a": b"1"}, {"b": b"2"})
    commit(root, {"c": b"3"}, name="other")
    seen = json.loads(run("skopeo", "inspect", f"oci:{root.images}:{NAME}"))
    assert seen["Digest"] == image.manifest_digest
    assert seen["Layers"] == list(image.config.diff_ids)
    assert seen["Env"] == ["A=b"]
    raw = run("skopeo", "inspect", "--raw", f"oci:{root.images}:{NAME}")
    assert raw.encode() == Blobs(root).read(image.manifest_digest)


@needs_skopeo
def test_what_skopeo_copies_into_the_store_is_an_image(root: DataRoot, tmp_path: Path) -> None:
    ours = commit(root, {"a": b"1"})
    elsewhere = DataRoot(str(tmp_path / "other"), run=str(tmp_path / "run2"))
    elsewhere.ensure()
    theirs = commit(elsewhere, {"x": b"9"})
    run("skopeo", "copy", f"oci:{elsewhere.images}:{NAME}", f"oci:{root.images}:copied")
    found = Images(root).get("copied")
    assert found.config.config["Env"] == theirs.config.config["Env"]
    assert found.config.diff_ids == theirs.config.diff_ids
    assert Images(root).get("app:v1").created == ours.created
    assert not any(image.error for image in Images(root).list())
    remove(Images(root), "copied", force=False, in_use=lambda _: ())
    assert [image.id for image in Images(root).list()] == [ours.id]
    run("skopeo", "inspect", f"oci:{root.images}:{NAME}")


@needs_umoci
@pytest.mark.skipif(os.geteuid() != 0, reason="umoci unpacks owners as they are only for root")
def test_umoci_lists_and_unpacks(root: DataRoot, tmp_path: Path) -> None:
    commit(root, {"etc/a": b"1", "etc/b": b"1"}, {"etc/b": b"2", "etc/.wh.a": b""})
    assert run("umoci", "ls", "--layout", root.images).split() == [NAME]
    run("umoci", "unpack", "--image", f"{root.images}:{NAME}", str(tmp_path / "bundle"))
    etc = tmp_path / "bundle" / "rootfs" / "etc"
    assert os.listdir(etc) == ["b"]
    assert (etc / "b").read_bytes() == b"2"
