from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from minidock.engine import images
from minidock.engine.engine import Engine
from minidock.errors import (
    ArchiveError,
    ConflictError,
    CorruptObjectError,
    HostError,
    InvalidReferenceError,
    NoSuchImageError,
)
from minidock.model.container import Record, Settings, State
from minidock.model.digest import digest_of
from minidock.model.oci import LAYER_TAR, Descriptor, History
from minidock.store.blobs import Blobs
from minidock.store.containers import ContainerStore
from minidock.store.images import Image, Images
from minidock.store.index import changing


def tarball(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def imported(engine: Engine, name: str = "", **files: bytes) -> Image:
    return images.import_tar(engine, io.BytesIO(tarball(**files)), name=name)


def container(engine: Engine, image: Image, *, status: str = "exited") -> str:
    record = Record(
        id=os.urandom(32).hex(),
        name=f"c{os.urandom(4).hex()}",
        created=1,
        image="x",
        image_id=image.id,
        diff_ids=image.config.diff_ids,
        driver="vfs",
        args=("sh",),
        env=(),
        workdir="/",
        user="",
        hostname="",
        labels=(),
        mounts=(),
        anonymous=(),
        exposed_ports=(),
        stop_signal="",
        settings=Settings(image="x"),
    )
    ContainerStore(engine.root).create(record, State(status=status), lambda _: None)
    return record.id


def names(engine: Engine) -> set[str]:
    return {name for image in images.list_images(engine) for name in image.names}


def test_an_imported_tarball_is_an_image_of_one_layer(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "rootfs.tar"
    path.write_bytes(tarball(hello=b"world"))
    image = images.import_tar(engine, str(path), name="mine:v1")
    assert image.config.diff_ids == (digest_of(path.read_bytes()),)
    assert images.inspect(engine, "mine:v1")["Comment"] == f"Imported from {path}"
    assert names(engine) == {"docker.io/library/mine:v1"}
    assert os.listdir(engine.root.tmp) == []


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_tarball_is_kept_plain(engine: Engine, pack: Callable[[bytes], bytes]) -> None:
    plain = tarball(hello=b"world")
    image = images.import_tar(engine, io.BytesIO(pack(plain)), message="by hand")
    assert image.config.diff_ids == (digest_of(plain),)
    assert image.names == ()
    assert images.history(engine, image.id)[0].comment == "by hand"


def test_standard_input_is_a_source(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "rootfs.tar"
    path.write_bytes(tarball(hello=b"world"))
    stdin = os.dup(0)
    with open(path, "rb") as file:
        os.dup2(file.fileno(), 0)
    try:
        image = images.import_tar(engine, "-")
        assert os.fstat(0)
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
    assert images.history(engine, image.id)[0].comment == "Imported from -"
    assert not sys.stdin.closed


@pytest.mark.parametrize("data", [b"", b"no tarball", tarball(a=b"x" * 600)[:700], gzip.compress(b"x")])
def test_what_is_no_tarball_leaves_nothing(engine: Engine, data: bytes) -> None:
    with pytest.raises(ArchiveError):
        images.import_tar(engine, io.BytesIO(data), name="bad")
    assert images.list_images(engine) == []
    assert os.listdir(engine.root.tmp) == []
    assert list(Blobs(engine.root).all()) == []


def test_an_import_is_refused_before_it_is_read(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(InvalidReferenceError):
        images.import_tar(engine, str(tmp_path / "absent"), name="NOT A NAME")
    with pytest.raises(HostError, match=r"cannot read the tarball .*absent: No such file"):
        images.import_tar(engine, str(tmp_path / "absent"))


def test_inspect_has_dockers_shape(engine: Engine) -> None:
    image = imported(engine, "mine", a=b"1")
    images.tag(engine, "mine", "example.org/team/mine:v2")
    shown = images.inspect(engine, image.id[7:19])
    assert list(shown) == [
        "Id",
        "RepoTags",
        "RepoDigests",
        "Parent",
        "Comment",
        "Created",
        "DockerVersion",
        "Author",
        "Config",
        "Architecture",
        "Os",
        "Size",
        "VirtualSize",
        "GraphDriver",
        "RootFS",
        "Metadata",
    ]
    assert shown["Id"] == image.id
    assert shown["RepoTags"] == ["mine:latest", "example.org/team/mine:v2"]
    assert shown["RepoDigests"] == [
        f"example.org/team/mine@{image.manifest_digest}",
        f"mine@{image.manifest_digest}",
    ]
    assert shown["Config"]["Cmd"] is None
    assert shown["RootFS"] == {"Type": "layers", "Layers": list(image.config.diff_ids)}
    assert shown["Size"] == len(tarball(a=b"1"))
    assert shown["Architecture"] in {"amd64", "arm64"}
    json.dumps(shown)


def test_history_is_the_latest_first_with_each_layers_size(engine: Engine) -> None:
    blobs, config = Blobs(engine.root), images.base_config(created="2024-01-01T00:00:00Z")
    one, two = blobs.put(b"1"), blobs.put(b"22")
    config.add_layer(one, History(created="2024-01-01T00:00:00Z", created_by="RUN 1"))
    config.add_layer(None, History(created_by="ENV A=b"))
    config.add_layer(two, History(created_by="RUN 2", comment="buildkit"))
    layers = [Descriptor(LAYER_TAR, one, 1), Descriptor(LAYER_TAR, two, 2)]
    image = Images(engine.root).commit(config, layers, names=["app"])
    lines = images.history(engine, "app")
    assert [(line.id, line.created_by, line.size, line.comment) for line in lines] == [
        (image.id, "RUN 2", 2, "buildkit"),
        ("", "ENV A=b", 0, ""),
        ("", "RUN 1", 1, ""),
    ]
    assert lines[0].names == ("app:latest",)
    assert lines[2].created == "2024-01-01T00:00:00Z"


def test_an_image_that_tells_no_history_still_shows_its_layers(engine: Engine) -> None:
    blobs, config = Blobs(engine.root), images.base_config(created="2024-01-01T00:00:00Z")
    layer = blobs.put(b"333")
    config.raw["rootfs"]["diff_ids"].append(layer)
    Images(engine.root).commit(config, [Descriptor(LAYER_TAR, layer, 3)], names=["app"])
    assert [line.size for line in images.history(engine, "app")] == [3]


def test_names_of_other_programs_are_passed_over(engine: Engine) -> None:
    image = imported(engine, "mine", a=b"1")
    with changing(engine.root) as index:
        index.set_name("NO REFERENCE", Descriptor("x", image.manifest_digest, 1), image.id)
    assert images.inspect(engine, "mine")["RepoTags"] == ["mine:latest"]


def test_tag_and_untag(engine: Engine) -> None:
    image = imported(engine, "a", x=b"1")
    assert images.tag(engine, "a", "b:v1") == "docker.io/library/b:v1"
    assert [(e.kind, e.name) for e in images.remove(engine, "a")] == [("Untagged", "a:latest")]
    events = images.remove(engine, "b:v1")
    assert [(e.kind, e.name) for e in events] == [
        ("Untagged", "b:v1"),
        ("Deleted", image.id),
        ("Deleted", image.config.diff_ids[0]),
    ]
    with pytest.raises(NoSuchImageError):
        images.tag(engine, "a", "c")
    with pytest.raises(InvalidReferenceError):
        images.tag(engine, "a", "b@sha256:" + "0" * 64)


def test_a_container_keeps_its_image_from_removal(engine: Engine) -> None:
    image = imported(engine, "a", x=b"1")
    container_id = container(engine, image)
    with pytest.raises(ConflictError, match=rf"must force\) - container {container_id[:12]} is using"):
        images.remove(engine, "a")
    images.remove(engine, "a", force=True)
    assert Blobs(engine.root).has(image.config.diff_ids[0])
    ContainerStore(engine.root).remove(container_id)
    imported(engine, "b", y=b"2")
    images.remove(engine, "b")
    assert list(Blobs(engine.root).all()) == []


def test_a_container_whose_monitor_is_dead_does_not_count_as_running(engine: Engine) -> None:
    image = imported(engine, "a", x=b"1")
    container(engine, image, status="running")
    assert images.remove(engine, image.id, force=True)[-1].kind == "Deleted"


def test_unpacked_layers_go_with_their_image(engine: Engine) -> None:
    from minidock.engine.parts import open_rootfs

    image, other = imported(engine, "a", x=b"1"), imported(engine, "b", y=b"2")
    rootfs = open_rootfs(engine)
    for each in (image, other):
        rootfs.ensure(each.config.diff_ids)
    assert len(rootfs.driver.keys()) == 2
    images.remove(engine, "a")
    assert rootfs.driver.keys() == [other.config.diff_ids[0][7:]]
    assert images.drivers_in_use(engine)[0].name == rootfs.driver.name


def test_a_folder_of_no_driver_stops_nothing(engine: Engine) -> None:
    os.mkdir(f"{engine.root.layers}/btrfs")
    imported(engine, "a", x=b"1")
    images.remove(engine, "a")
    assert [driver.name for driver in images.drivers_in_use(engine)] == ["overlay2"]


def test_the_build_caches_layers_stay_but_for_the_images_own(engine: Engine) -> None:
    image = imported(engine, "a", x=b"1")
    other = Blobs(engine.root).put(b"a step of another build")
    os.mkdir(f"{engine.root.cache}/build")
    for name, text in (
        ("1.json", json.dumps({"diff_id": image.config.diff_ids[0]})),
        ("2.json", json.dumps({"diff_id": other})),
        ("3.json", json.dumps({"diff_id": None})),
        ("4.json", "{"),
        ("5.json", json.dumps({"diff_id": "../../etc"})),
    ):
        Path(engine.root.cache, "build", name).write_text(text)
    os.symlink("nowhere", f"{engine.root.cache}/build/6.json")
    assert set(images.cached_layers(engine.root)) == {image.config.diff_ids[0], other}
    images.remove(engine, "a")
    assert list(Blobs(engine.root).all()) == [other]


def test_a_damaged_image_is_named_and_can_be_removed(engine: Engine) -> None:
    image = imported(engine, "a", x=b"1")
    os.unlink(Blobs(engine.root).path(image.id))
    with pytest.raises(CorruptObjectError, match="the image a is damaged"):
        images.inspect(engine, "a")
    assert images.list_images(engine)[0].error
    images.remove(engine, "a")
    assert images.list_images(engine) == []


def test_rfc3339() -> None:
    assert images.rfc3339(0) == "1970-01-01T00:00:00Z"
    assert images.rfc3339(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"
