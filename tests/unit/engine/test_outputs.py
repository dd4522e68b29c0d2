"""What a build is to leave behind, as options and before anything is built."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any, cast

import pytest

from minidock.engine import building
from minidock.engine.archives import encode_image, write_empty_archive, write_image_archive
from minidock.engine.options import OutputOptions
from minidock.engine.outputs import Exporter, make_wishes
from minidock.errors import CorruptObjectError, InvalidReferenceError, UsageError
from minidock.model.oci import LAYER_TAR, Descriptor, ImageConfig
from minidock.store.blobs import Blobs
from minidock.store.layout import DataRoot


def check(**options: Any) -> None:
    Exporter(make_wishes(**options), images=cast("Any", None), rootfs=cast("Any", None)).check()


def test_options_are_told_from_the_others() -> None:
    assert {*building._OUTPUT_OPTIONS} == OutputOptions.__annotations__.keys()
    options: dict[str, Any] = {"outputs": ["a"], "stdout": 1, "squash": True, "shm_size": 5}
    wishes = building._wishes(options)
    assert wishes is not None
    assert (wishes.outputs[0].dest, wishes.stdout, wishes.squash) == ("a", 1, True)
    assert options == {"shm_size": 5}
    assert building._wishes({"stdout": 1, "outputs": (), "iidfile": ""}) is None


def test_an_id_of_an_earlier_build_goes_and_other_files_stay(tmp_path: Path) -> None:
    for name in ("iid", "metadata", "a.tar"):
        (tmp_path / name).write_text("old")
    check(outputs=[f"type=tar,dest={tmp_path}/a.tar"], iidfile=f"{tmp_path}/iid", metadata_file=f"{tmp_path}/metadata")
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "metadata"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"outputs": ["-"]}, "no destination"),
        ({"outputs": ["type=tar,dest={}/none/f"]}, "there is no folder"),
        ({"outputs": ["type=tar,dest={}"]}, "it is a folder"),
        ({"outputs": ["{}/file"]}, "is not a folder"),
        ({"outputs": ["{}/file/below"]}, "is not a folder"),
        ({"annotations": ["index:a=b"]}, "needs an output that has one"),
        ({"metadata_file": "{}"}, "it is a folder"),
        ({"iidfile": "a\0b"}, "NUL"),
    ],
)
def test_what_cannot_be_written_is_refused_first(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    (tmp_path / "file").touch()
    placed = {
        name: value.format(tmp_path) if isinstance(value, str) else [text.format(tmp_path) for text in value]
        for name, value in options.items()
    }
    with pytest.raises(UsageError, match=reason):
        check(**placed)


def test_an_archive_is_not_written_to_a_terminal() -> None:
    outer, inner = os.openpty()
    try:
        with pytest.raises(UsageError, match="terminal"):
            check(outputs=["-"], stdout=inner)
    finally:
        os.close(outer)
        os.close(inner)


def test_a_name_with_a_digest_is_no_name_to_give() -> None:
    with pytest.raises(InvalidReferenceError, match="names a digest"):
        check(outputs=[f"type=image,name=a@sha256:{'0' * 64}"])


class Store:
    """Blobs with one layer in them, and the image that is made of it."""

    def __init__(self, path: Path) -> None:
        root = DataRoot(str(path / "root"), run=str(path / "run"))
        root.ensure()
        self.blobs = Blobs(root)
        self.layer = self.blobs.put(b"a layer")
        self.config = ImageConfig.new(architecture="amd64")
        self.config.raw["rootfs"]["diff_ids"] = [self.layer, self.layer]
        layers = [Descriptor(LAYER_TAR, self.layer, len(b"a layer"))] * 2
        self.image = encode_image(self.config, layers, annotations=(("k", "v"),))

    def archive(self, **options: Any) -> bytes:
        out = io.BytesIO()
        write_image_archive(out, self.image, self.blobs, **options)
        return out.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
        return {name: file.read() for name, file in files if file is not None}


def test_an_archive_has_each_blob_once_and_the_same_bytes_each_time(store: Store) -> None:
    data = store.archive(names=["docker.io/library/a:1", "docker.io/library/b:2"], annotations=(("i", "j"),))
    assert data == store.archive(names=["docker.io/library/a:1", "docker.io/library/b:2"], annotations=(("i", "j"),))
    found = members(data)
    assert found[f"blobs/sha256/{store.layer[7:]}"] == b"a layer"
    assert len(found) == 5
    index = json.loads(found["index.json"])
    assert index["annotations"] == {"i": "j"}
    names = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]
    assert names == ["docker.io/library/a:1", "docker.io/library/b:2"]
    manifest = json.loads(found[f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"])
    assert manifest["annotations"] == {"k": "v"}


def test_dockers_table_of_contents(store: Store) -> None:
    (entry,) = json.loads(members(store.archive(names=["docker.io/library/a:1"], for_docker=True))["manifest.json"])
    assert entry["RepoTags"] == ["a:1"]
    assert entry["Layers"] == [f"blobs/sha256/{store.layer[7:]}"] * 2
    (nameless,) = json.loads(members(store.archive(names=[], for_docker=True))["manifest.json"])
    assert nameless["RepoTags"] is None


def test_a_layer_that_is_missing(store: Store) -> None:
    store.blobs.remove(store.layer)
    with pytest.raises(CorruptObjectError, match="missing"):
        store.archive(names=[])


def test_an_empty_archive_is_a_tar() -> None:
    out = io.BytesIO()
    write_empty_archive(out)
    assert members(out.getvalue()) == {}
