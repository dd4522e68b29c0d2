"""The store on file systems as they come: with mounts in its trees, and full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidock.errors import StoreError
from minidock.model.container import Record, Settings, State
from minidock.model.oci import LAYER_TAR, Descriptor, History, ImageConfig
from minidock.store import files
from minidock.store.blobs import Blobs
from minidock.store.containers import ContainerStore, new_id
from minidock.store.images import Image, Images
from minidock.store.layout import DataRoot
from minidock.store.removal import remove


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A tree with a tmpfs in it that holds a file."""
    point = tmp_path / "tree" / "a" / "point"
    point.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    try:
        (point / "kept").write_text("")
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_mount_in_a_tree_stops_its_removal_and_stays_whole(tmp_path: Path, mounted: Path) -> None:
    (tmp_path / "tree" / "a" / "file").write_text("")
    with pytest.raises(OSError, match="something is mounted here") as caught:
        files.remove_tree(str(tmp_path / "tree"))
    assert caught.value.filename == str(mounted)
    assert (mounted / "kept").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four MiB."""
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_on_a_full_disk_containers_and_images_can_still_be_removed(tmp_path: Path, small_disk: Path) -> None:
    root = DataRoot(str(small_disk / "root"), run=str(tmp_path / "run"))
    root.ensure()
    images, store = Images(root), ContainerStore(root)
    digest = Blobs(root).put(b"layer" * 1000)
    config = ImageConfig.new(architecture="amd64")
    config.add_layer(digest, History())
    image = images.commit(config, [Descriptor(LAYER_TAR, digest, 5000)], names=["a"])
    record = a_record(image)
    store.create(record, State(), lambda _: None)
    with pytest.raises(OSError, match="No space left"):
        fill(small_disk / "filler")
    with pytest.raises(StoreError, match="No space left"):
        store.create(a_record(image), State(), lambda _: None)
    store.remove(record.id)
    remove(images, "a", force=False, in_use=lambda _: ())
    assert images.list() == []
    assert list(Blobs(root).all()) == []
    assert os.listdir(root.tmp) == []


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def a_record(image: Image) -> Record:
    return Record(
        id=new_id(),
        name=f"c{new_id()[:12]}",
        created=1,
        image="a",
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
        settings=Settings(image="a"),
    )
