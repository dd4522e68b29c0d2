from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from minidock.model.digest import digest_of
from minidock.store import files, staging
from minidock.store.blobs import Blobs
from minidock.store.checking import Checking, Fault, lost_entries
from minidock.store.images import Image, Images
from minidock.store.index import changing, read_index
from minidock.store.layout import DataRoot
from minidock.store.staging import Staging


def damage(root: DataRoot, digest: str) -> None:
    path = Blobs(root).path(digest)
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.write(b"!")


class TestBlobs:
    def test_each_is_read_once(self, root: DataRoot) -> None:
        checking = Checking(Blobs(root))
        digest = Blobs(root).put(b"content")
        assert [checking.blob(digest), checking.blob(digest)] == ["", ""]
        assert checking.size == 7
        damage(root, digest)
        assert checking.blob(digest) == ""
        assert Checking(Blobs(root)).blob(digest) == "is damaged: its content has another digest"

    def test_bad_ones_have_their_phrases(self, root: DataRoot) -> None:
        checking = Checking(Blobs(root))
        digest, missing = Blobs(root).put(b"content"), digest_of(b"never stored")
        checking.blob(digest)
        assert checking.bad_blobs() == {}
        assert checking.blob(missing) == "is missing"
        assert checking.bad_blobs() == {missing: "is missing"}

    def test_what_is_no_file_cannot_be_read_and_blocks_nothing(self, root: DataRoot) -> None:
        digest = digest_of(b"x")
        os.mkfifo(Blobs(root).path(digest))
        assert Checking(Blobs(root)).blob(digest) == "cannot be read: it is not a regular file"


class TestImages:
    def faults(self, root: DataRoot, image: Image) -> list[Fault]:
        entries = Images(root).by_id(read_index(root))[image.id]
        checked = Checking(Blobs(root)).image(image.id, entries)
        if not any(fault.blob == image.id for fault in checked.faults):
            assert checked.diff_ids == image.config.diff_ids
        return list(checked.faults)

    def test_a_whole_one(self, root: DataRoot, make_image: Callable[..., Image]) -> None:
        assert self.faults(root, make_image(b"one", b"two", names=("a", "b"))) == []

    def test_faults_name_their_blobs(self, root: DataRoot, make_image: Callable[..., Image]) -> None:
        image = make_image(b"one", b"two", names=("a",))
        first, second = image.config.diff_ids
        damage(root, first)
        os.unlink(Blobs(root).path(second))
        assert self.faults(root, image) == [
            Fault(f"the layer {first} is damaged: its content has another digest", first),
            Fault(f"the layer {second} is missing", second),
        ]
        os.unlink(Blobs(root).path(image.id))
        assert Fault(f"the configuration {image.id} is missing", image.id) in self.faults(root, image)

    def test_a_manifest_that_names_another_image(self, root: DataRoot, make_image: Callable[..., Image]) -> None:
        image, other = make_image(b"one", names=("a",)), make_image(b"two", names=("b",))
        with changing(root) as index:
            index.entries = [entry._replace(config=other.id) for entry in index.entries]
        entries = [entry._replace(config=other.id) for entry in read_index(root).entries]
        (fault,) = Checking(Blobs(root)).image(other.id, entries).faults
        assert fault == Fault(f"the manifest {image.manifest_digest} is that of the image {image.id}")


def test_entries_that_are_none_are_counted(root: DataRoot, make_image: Callable[..., Image]) -> None:
    make_image(b"one", names=("a",))
    assert lost_entries(read_index(root)) == 0
    value = files.read_json(root.index)
    value["manifests"] += [3, {}]
    files.write_json(root.index, value, sync=False)
    assert lost_entries(read_index(root)) == 2


class TestAbandoned:
    def test_what_nobody_holds(self, root: DataRoot) -> None:
        os.mkdir(f"{root.tmp}/folder")
        os.symlink("nowhere", f"{root.tmp}/link")
        fd, _ = files.open_scratch(root.tmp)
        with Staging(root):
            assert staging.abandoned(root) == {"folder", "link"}
        os.close(fd)
        assert len(staging.abandoned(root)) == 3
        assert len(os.listdir(root.tmp)) == 3
        assert staging.sweep(root) == 3
        assert staging.abandoned(root) == set()

    def test_what_vanishes_meanwhile_is_none(self, root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
        real: Any = os.listdir
        monkeypatch.setattr(os, "listdir", lambda path: [*real(path), "gone"])
        assert staging.abandoned(root) == set()
