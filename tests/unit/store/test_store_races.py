"""Readers, writers and removers at once: nobody ever sees half of anything."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minidock.errors import NoSuchImageError
from minidock.model.container import Record, State
from minidock.model.digest import digest_of
from minidock.model.oci import LAYER_TAR, Descriptor, History, ImageConfig
from minidock.store import images as images_module
from minidock.store import locks, staging
from minidock.store.blobs import Blobs
from minidock.store.collector import collect
from minidock.store.containers import ContainerStore, new_id
from minidock.store.images import Images
from minidock.store.layout import DataRoot
from minidock.store.removal import Use, remove
from minidock.store.staging import Staging

SECONDS = 1.5
NAMES = ("a", "b", "c")


def at_once(*acts: Callable[[random.Random], None]) -> None:
    """Each act in a process of its own, over and over for a moment; an act that raises fails the test."""
    pids = []
    for number, act in enumerate(acts):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                chance, end = random.Random(number), time.monotonic() + SECONDS
                while time.monotonic() < end:
                    act(chance)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    results = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert results == [0] * len(acts)


def commit(root: DataRoot, content: bytes, name: str) -> None:
    digest = digest_of(content)
    with Staging(root) as stage:
        stage.lean_on([digest])
        Path(stage.path, "layer").write_bytes(content)
        Blobs(root).adopt(f"{stage.path}/layer", digest)
        config = ImageConfig.new(architecture="amd64")
        config.add_layer(digest, History())
        Images(root).commit(config, [Descriptor(LAYER_TAR, digest, len(content))], names=[name])


def test_commits_removals_containers_and_readers(root: DataRoot, make_record: Callable[..., Record]) -> None:
    store, images = ContainerStore(root), Images(root)

    def in_use(image_id: str) -> list[Use]:
        return [Use(record.id, running=False) for record, _ in store.list() if record.image_id == image_id]

    def build(chance: random.Random) -> None:
        commit(root, bytes([chance.randrange(4)]), chance.choice(NAMES))

    def untag(chance: random.Random) -> None:
        try:
            remove(images, chance.choice(NAMES), force=True, in_use=in_use)
        except NoSuchImageError:
            collect(root)
        staging.sweep(root)

    def run(chance: random.Random) -> None:
        try:
            with locks.shared(root.collection_lock):
                image = images.get(chance.choice(NAMES))
                record = make_record(f"c{new_id()[:8]}", image_id=image.id, diff_ids=image.config.diff_ids)
                store.create(record, State(), lambda _: None)
        except NoSuchImageError:
            return
        assert all(images.blobs.has(diff_id) for diff_id in record.diff_ids)
        assert images.blobs.has(image.id)
        store.remove(record.id)

    def read(chance: random.Random) -> None:
        assert not [image.error for image in images.list() if image.error]
        for record, state in store.list():
            assert (record.driver, state.exit_code) == ("vfs", 0)

    at_once(build, build, untag, run, read)
    staging.sweep(root)
    assert os.listdir(root.tmp) == []
    assert not [image.error for image in images.list() if image.error]


def test_an_image_that_goes_while_it_is_read_has_never_been_there(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(root, b"1", "a")
    commit(root, b"2", "b")
    real = images_module.read_index

    def read_index(root: DataRoot) -> object:
        index = real(root)
        monkeypatch.setattr(images_module, "read_index", real)
        remove(Images(root), "a", force=False, in_use=lambda _: ())
        return index

    monkeypatch.setattr(images_module, "read_index", read_index)
    assert [image.names for image in Images(root).list()] == [("docker.io/library/b:latest",)]
    commit(root, b"1", "a")
    monkeypatch.setattr(images_module, "read_index", read_index)
    with pytest.raises(NoSuchImageError):
        Images(root).get("a")


def test_racers_of_other_processes_for_one_name(root: DataRoot, make_record: Callable[..., Record]) -> None:
    store = ContainerStore(root)

    def race(chance: random.Random) -> None:
        from minidock.errors import ConflictError

        record = make_record("web", id=new_id())
        try:
            store.create(record, State(), lambda _: None)
        except ConflictError:
            return
        assert store.resolve("web") == record.id
        store.remove(record.id)

    at_once(race, race, race)
    assert store.ids() == []
    assert os.listdir(root.names) == []
