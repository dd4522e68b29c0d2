"""Writers killed at each of their steps: what is visible is whole, and the next operation cleans up and succeeds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from minidock.errors import NoSuchImageError
from minidock.model.container import Record, State
from minidock.model.digest import digest_of
from minidock.model.oci import LAYER_TAR, Descriptor, History, ImageConfig
from minidock.store import staging
from minidock.store.blobs import Blobs
from minidock.store.collector import collect
from minidock.store.containers import ContainerStore
from minidock.store.images import Image, Images
from minidock.store.layout import DataRoot
from minidock.store.removal import Use, remove
from minidock.store.staging import Staging


class Killer(Protocol):
    def each_step(self, act: Callable[[], object]) -> Iterator[tuple[int, bool]]: ...


def nothing(path: str) -> None:
    return


def unused(image_id: str) -> Sequence[Use]:
    return ()


def check(root: DataRoot) -> None:
    """Nothing visible is half-made."""
    blobs = Blobs(root)
    for digest in blobs.all():
        assert digest_of(Path(blobs.path(digest)).read_bytes()) == digest
    for image in Images(root).list():
        assert image.error == ""
        assert all(blobs.has(layer.digest) for layer in image.manifest.layers)
    store = ContainerStore(root)
    listed = {record.id: state for record, state in store.list()}
    assert set(listed) == set(store.ids())
    for container_id, state in listed.items():
        assert os.path.exists(store.lock_path(container_id))
        assert state.exit_code != 255
    assert set(os.listdir(root.images)) == {"blobs", "index.json", "oci-layout"}


def swept(root: DataRoot) -> None:
    staging.sweep(root)
    assert os.listdir(root.tmp) == []


def commit_layer(root: DataRoot, content: bytes, name: str) -> Image:
    digest = digest_of(content)
    with Staging(root) as stage:
        stage.lean_on([digest])
        Path(stage.path, "layer").write_bytes(content)
        Blobs(root).adopt(f"{stage.path}/layer", digest)
        config = ImageConfig.new(architecture="amd64")
        config.add_layer(digest, History())
        return Images(root).commit(config, [Descriptor(LAYER_TAR, digest, len(content))], names=[name])


def test_the_first_call(tmp_path: Path, killer: Killer) -> None:
    root = DataRoot(str(tmp_path / "r"), run=str(tmp_path / "run"))
    for _ in killer.each_step(root.ensure):
        if os.path.exists(f"{root.path}/version"):
            check(root)
        root.ensure()
        check(root)
        swept(root)
        shutil.rmtree(root.path)


def test_a_commit(root: DataRoot, killer: Killer) -> None:
    old = commit_layer(root, b"old", "app")
    for _ in killer.each_step(lambda: commit_layer(root, b"new", "app")):
        check(root)
        seen = Images(root).get("app")
        swept(root)
        collect(root)
        check(root)
        if seen.id == old.id:
            assert set(Blobs(root).all()) == {old.id, old.manifest_digest, digest_of(b"old")}
        new = commit_layer(root, b"new", "app")
        assert Images(root).get("app").id == new.id
        Images(root).tag(old, "app")
        remove(Images(root), new.id, force=False, in_use=unused)


def test_a_tag(root: DataRoot, killer: Killer) -> None:
    one, two = commit_layer(root, b"1", "one"), commit_layer(root, b"2", "two")
    for _ in killer.each_step(lambda: Images(root).tag(two, "one")):
        check(root)
        assert Images(root).get("one").id in (one.id, two.id)
        assert Images(root).ids() == {one.id, two.id}
        Images(root).tag(one, "one")
        assert Images(root).get("one").id == one.id
        swept(root)


def test_a_removal_of_an_image(root: DataRoot, killer: Killer) -> None:
    kept = commit_layer(root, b"kept", "kept")

    def remove_gone() -> None:
        remove(Images(root), "gone", force=False, in_use=unused)

    commit_layer(root, b"gone", "gone")
    for _ in killer.each_step(remove_gone):
        check(root)
        try:
            remove_gone()
        except NoSuchImageError:
            collect(root)
        swept(root)
        assert set(Blobs(root).all()) == {kept.id, kept.manifest_digest, digest_of(b"kept")}
        commit_layer(root, b"gone", "gone")


@pytest.mark.parametrize("temporary", [False, True])
def test_the_making_of_a_container(
    root: DataRoot, killer: Killer, make_record: Callable[..., Record], temporary: bool
) -> None:
    store = ContainerStore(root)
    record = make_record("web")
    record = record._replace(settings=record.settings._replace(auto_remove=temporary))

    def fill(path: str) -> None:
        os.mkdir(f"{path}/upper")
        Path(path, "config.json").write_text("{}")

    for _ in killer.each_step(lambda: store.create(record, State(), fill)):
        check(root)
        store.drop_lost_names()
        there = store.ids()
        assert len(os.listdir(root.names)) == len(there)
        if there:
            assert store.resolve("web") == record.id
            assert os.path.isdir(f"{root.container_dir(record.id)}/upper")
            store.remove(record.id)
        else:
            again = make_record("web")
            store.create(again, State(), fill)
            assert store.resolve("web") == again.id
            store.remove(again.id)
        swept(root)
        assert os.listdir(root.names) == []


def test_the_writing_of_a_state(root: DataRoot, killer: Killer, make_record: Callable[..., Record]) -> None:
    store, record = ContainerStore(root), make_record("web")
    store.create(record, State(), nothing)
    old, new = State(status="running", pid=7), State(status="exited", exit_code=3)
    store.write_state(record.id, old, sync=True)
    for _ in killer.each_step(lambda: store.write_state(record.id, new, sync=True)):
        assert store.state(record.id) in (old, new)
        check(root)
        store.write_state(record.id, old, sync=True)
        swept(root)


def test_the_removal_of_a_container(root: DataRoot, killer: Killer, make_record: Callable[..., Record]) -> None:
    store, record = ContainerStore(root), make_record("web")

    def fill(path: str) -> None:
        os.mkdir(f"{path}/upper")
        Path(path, "upper", "file").write_text("")

    store.create(record, State(), fill)
    for _ in killer.each_step(lambda: store.remove(record.id)):
        check(root)
        store.drop_lost_names()
        assert len(os.listdir(root.names)) == len(store.ids())
        store.remove(record.id)
        assert store.ids() == []
        store.create(record, State(), fill)
        assert store.resolve("web") == record.id
        swept(root)


def test_a_staging(root: DataRoot, killer: Killer) -> None:
    def act() -> None:
        with Staging(root) as stage:
            stage.lean_on([digest_of(b"x")])
            Path(stage.path, "half").write_text("")

    for _ in killer.each_step(act):
        assert staging.staged_digests(root) == set()
        swept(root)
