from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minidock.errors import CorruptObjectError, InvalidReferenceError, NoSuchImageError, StoreError
from minidock.model.digest import digest_of
from minidock.model.oci import LAYER_GZIP, LAYER_TAR, REF_NAME, Descriptor, History, ImageConfig
from minidock.store.images import Image, Images
from minidock.store.index import CONFIG_DIGEST, STORED, read_index
from minidock.store.layout import DataRoot

MakeImage = Callable[..., Image]


def index_json(root: DataRoot) -> dict[str, object]:
    value = json.loads(Path(root.index).read_text())
    assert isinstance(value, dict)
    return value


def write_index(root: DataRoot, *manifests: object, **more: object) -> None:
    Path(root.index).write_text(json.dumps({"schemaVersion": 2, "manifests": manifests, **more}))


def test_commit_writes_a_valid_index(root: DataRoot, make_image: MakeImage) -> None:
    before = time.time_ns()
    image = make_image(b"layer", names=("busybox",))
    index = index_json(root)
    assert index["schemaVersion"] == 2
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert index["manifests"] == [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": image.manifest_digest,
            "size": os.stat(f"{root.blobs}/{image.manifest_digest[7:]}").st_size,
            "annotations": {
                REF_NAME: "docker.io/library/busybox:latest",
                STORED: str(image.created),
                CONFIG_DIGEST: image.id,
            },
        }
    ]
    assert before <= image.created <= time.time_ns()
    assert image.names == ("docker.io/library/busybox:latest",)
    assert image.size == 5
    assert image.config.diff_ids == (digest_of(b"layer"),)
    assert os.stat(root.index).st_mode & 0o777 == 0o644


def test_an_image_is_found_by_name_id_and_prefix(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1", names=("busybox", "example.org:5000/team/app:v1"))
    make_image(b"2", names=("other",))
    images = Images(root)
    for text in (
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "example.org:5000/team/app:v1",
        f"busybox@{image.manifest_digest}",
        f"busybox:any@{image.manifest_digest}",
        image.id,
        image.id[7:],
        image.id[:20],
        image.id[7:19],
        image.manifest_digest,
    ):
        assert images.get(text)[:3] == image[:3], text


@pytest.mark.parametrize("text", ["absent", "busybox:v2", "f" * 64, "sha256:" + "f" * 64, "0123", "example.org/x"])
def test_what_is_not_there_is_named_with_a_way_out(root: DataRoot, make_image: MakeImage, text: str) -> None:
    make_image(b"1", names=("busybox",))
    with pytest.raises(NoSuchImageError, match=f"no such image: {text}") as caught:
        Images(root).get(text)
    assert "minidock image bootstrap" in caught.value.hint


def test_a_digest_of_another_repository_is_not_found(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1", names=("busybox",))
    with pytest.raises(NoSuchImageError):
        Images(root).get(f"debian@{image.manifest_digest}")


def test_what_is_neither_name_nor_id(root: DataRoot) -> None:
    for text in ("UPPER", "../x", "a b", ""):
        with pytest.raises(InvalidReferenceError):
            Images(root).get(text)


def test_an_ambiguous_prefix(root: DataRoot, make_image: MakeImage) -> None:
    seen: dict[str, int] = {}
    for number in range(17):
        first = make_image(str(number).encode()).id[7]
        seen[first] = seen.get(first, 0) + 1
    shared = next(first for first, count in seen.items() if count > 1)
    with pytest.raises(NoSuchImageError, match="ambiguous"):
        Images(root).get(f"sha256:{shared}")


def test_a_name_wins_over_an_id_prefix(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1")
    named = make_image(b"2", names=(image.id[7:13],))
    assert Images(root).get(image.id[7:13])[:3] == named[:3]


def test_committing_the_same_again_changes_nothing(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1", names=("a",))
    before = os.stat(root.index).st_ino
    assert make_image(b"1", names=("a",))[:4] == image[:4]
    assert make_image(b"1")[:4] == image[:4]
    assert os.stat(root.index).st_ino == before


def test_what_could_not_be_read_again_is_not_stored(root: DataRoot, make_image: MakeImage) -> None:
    before = sorted(os.listdir(root.blobs))
    with pytest.raises(StoreError, match="larger than 4 MiB"):
        make_image(env="A=" + "x" * (4 << 20), names=("a",))
    assert sorted(os.listdir(root.blobs)) == before
    make_image(env="A=" + "x" * (3 << 20), names=("a",))
    assert [image.names for image in Images(root).list()] == [("docker.io/library/a:latest",)]


def test_a_moved_name_leaves_its_old_image_without_a_name(root: DataRoot, make_image: MakeImage) -> None:
    old = make_image(b"1", names=("app",))
    new = make_image(b"2", names=("app",))
    listed = {image.id: image for image in Images(root).list()}
    assert listed[old.id].names == ()
    assert listed[old.id].created == old.created
    assert listed[new.id].names == ("docker.io/library/app:latest",)
    assert REF_NAME not in next(e for e in read_index(root).entries if e.config == old.id).raw["annotations"]
    make_image(b"1", names=("old",))
    assert len(read_index(root).entries) == 2


def test_list_is_one_line_for_each_image_the_latest_first(root: DataRoot, make_image: MakeImage) -> None:
    one = make_image(b"1", names=("a", "b", "a:v2"))
    two = make_image(b"2")
    assert [image.id for image in Images(root).list()] == [two.id, one.id]
    assert Images(root).list()[1].names == tuple(f"docker.io/library/{n}" for n in ("a:latest", "a:v2", "b:latest"))
    assert Images(root).ids() == {one.id, two.id}


def test_tag(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1")
    images = Images(root)
    assert images.tag(image, "app:v1") == "docker.io/library/app:v1"
    assert images.get("app:v1").id == image.id
    assert images.get("app:v1").created == image.created
    assert len(read_index(root).entries) == 1
    with pytest.raises(InvalidReferenceError, match="names a digest"):
        images.tag(image, f"app@{image.id}")
    gone = image._replace(manifest_digest="sha256:" + "0" * 64)
    with pytest.raises(NoSuchImageError):
        images.tag(gone, "app:v2")


def test_layers_are_checked_before_anything_is_written(root: DataRoot) -> None:
    images = Images(root)
    config = ImageConfig.new(architecture="amd64")
    config.add_layer(digest_of(b"1"), History())
    plain = Descriptor(LAYER_TAR, digest_of(b"1"), 1)
    with pytest.raises(StoreError, match="is not in the store"):
        images.commit(config, [plain], names=["a"])
    with pytest.raises(StoreError, match="0 layers but 1 diff IDs"):
        images.commit(config, [], names=["a"])
    with pytest.raises(StoreError, match="stands where"):
        images.commit(config, [plain._replace(digest=digest_of(b"2"))], names=["a"])
    images.blobs.put(b"1")
    config.raw["history"].append({"created_by": "RUN x"})
    with pytest.raises(StoreError, match="history has 2 layers"):
        images.commit(config, [plain], names=["a"])
    assert images.list() == []


def test_an_image_without_layers_or_history(root: DataRoot) -> None:
    image = Images(root).commit(ImageConfig.new(architecture="amd64"), [], names=["empty"])
    assert image.size == 0
    assert image.config.architecture == "amd64"


def test_size_is_that_of_the_plain_layer_where_it_is_here(root: DataRoot) -> None:
    images = Images(root)
    plain, packed, elsewhere = images.blobs.put(b"plain layer"), images.blobs.put(b"gz"), digest_of(b"not here")
    config = ImageConfig.new(architecture="amd64")
    for diff_id in (plain, elsewhere):
        config.add_layer(diff_id, History())
    layers = [Descriptor(LAYER_GZIP, packed, 2), Descriptor(LAYER_GZIP, packed, 2)]
    assert images.commit(config, layers).size == 11 + 2


def test_damage_is_listed_and_named_but_blocks_nothing(root: DataRoot, make_image: MakeImage) -> None:
    sound, no_config, no_manifest = (make_image(c, names=(n,)) for c, n in ((b"1", "a"), (b"2", "b"), (b"3", "c")))
    os.unlink(f"{root.blobs}/{no_config.id[7:]}")
    os.chmod(f"{root.blobs}/{no_manifest.manifest_digest[7:]}", 0o600)
    Path(root.blobs, no_manifest.manifest_digest[7:]).write_bytes(b"{}")
    images = Images(root)
    listed = {image.id: image for image in images.list()}
    assert listed[sound.id].error == ""
    assert "missing" in listed[no_config.id].error
    assert "damaged" in listed[no_manifest.id].error
    assert images.get("a").id == sound.id
    for name in ("b", "c"):
        with pytest.raises(CorruptObjectError, match=f"the image {name} is damaged") as caught:
            images.get(name)
        assert f"rmi -f {name}" in caught.value.hint


def test_an_entry_that_lies_about_its_configuration(root: DataRoot, make_image: MakeImage) -> None:
    two = make_image(b"2")
    make_image(b"1", names=("a",))
    value = index_json(root)
    value["manifests"][1]["annotations"][CONFIG_DIGEST] = two.id  # type: ignore[index]
    write_index(root, *value["manifests"])  # type: ignore[misc]
    with pytest.raises(CorruptObjectError, match="names another configuration"):
        Images(root).get("a")


def test_layers_and_diff_ids_that_differ_in_number(root: DataRoot) -> None:
    images = Images(root)
    config = ImageConfig.new(architecture="amd64").encode()
    layer, config_digest = images.blobs.put(b"x"), images.blobs.put(config)
    manifest = {
        "schemaVersion": 2,
        "config": Descriptor("x", config_digest, len(config)).to_json(),
        "layers": [Descriptor(LAYER_TAR, layer, 1).to_json()],
    }
    data = json.dumps(manifest).encode()
    write_index(root, Descriptor("x", images.blobs.put(data), len(data), ((REF_NAME, "a"),)).to_json())
    with pytest.raises(CorruptObjectError, match="1 layers but 0 diff IDs"):
        images.get("a")


def test_entries_of_other_programs_are_read_and_kept(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1")
    value = index_json(root)["manifests"][0]  # type: ignore[index]
    foreign = {**value, "annotations": {REF_NAME: "short"}, "platform": {"os": "linux"}}
    write_index(
        root, foreign, {**value, "annotations": {REF_NAME: "NO REFERENCE", STORED: "x"}}, {"digest": 1}, extra=1
    )
    images = Images(root)
    with pytest.raises(NoSuchImageError):
        images.get(f"elsewhere@{image.manifest_digest}")
    found = images.get("short")
    assert (found.id, found.created) == (image.id, 0)
    assert found.names == ("NO REFERENCE", "docker.io/library/short:latest")
    make_image(b"2", names=("new",))
    written = index_json(root)
    assert written["extra"] == 1
    assert written["manifests"][0] == foreign  # type: ignore[index]
    assert len(written["manifests"]) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, "", "{}", '{"manifests": {}}', "[]"])
def test_a_damaged_index_is_named(root: DataRoot, text: str | None) -> None:
    os.unlink(root.index)
    if text is not None:
        Path(root.index).write_text(text)
    with pytest.raises(CorruptObjectError, match=r"index\.json"):
        Images(root).list()


def test_an_unreadable_index(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def fail(path: str, *args: object, **kwargs: object) -> int:
        if path == root.index:
            raise OSError(5, "Input/output error", path)
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        Images(root).list()
