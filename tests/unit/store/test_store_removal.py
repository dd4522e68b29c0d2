from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from minidock.errors import ConflictError, NoSuchImageError, StoreError
from minidock.model.container import Record, State
from minidock.model.digest import chain_id, digest_of
from minidock.model.oci import INDEX, LAYER_TAR, Descriptor, History, ImageConfig, encode_json
from minidock.store import collector
from minidock.store.blobs import Blobs
from minidock.store.collector import collect
from minidock.store.containers import ContainerStore
from minidock.store.images import Image, Images
from minidock.store.index import changing
from minidock.store.layout import DataRoot
from minidock.store.removal import Removal, Use, remove
from minidock.store.staging import Staging

MakeImage = Callable[..., Image]
ID = "c" * 64


def unused(image_id: str) -> Sequence[Use]:
    return ()


def stopped(image_id: str) -> Sequence[Use]:
    return (Use(ID, running=False),)


def running(image_id: str) -> Sequence[Use]:
    return (Use(ID, running=True),)


class FakeTrees:
    """Layers that are but names."""

    def __init__(self, *keys: str) -> None:
        self.held = {key.removeprefix("sha256:") for key in keys}

    def keys(self) -> Iterable[str]:
        return list(self.held)

    def remove(self, key: str, /) -> None:
        self.held.remove(key)


def lines(events: Sequence[Removal]) -> list[str]:
    return [f"{event.kind}: {event.name}" for event in events]


def test_the_last_name_takes_the_image_with_it(root: DataRoot, make_image: MakeImage) -> None:
    shared = make_image(b"base", names=("base",))
    image = make_image(b"base", b"top", names=("app",))
    events = remove(Images(root), "app", force=False, in_use=unused)
    assert lines(events) == ["Untagged: app:latest", f"Deleted: {image.id}", f"Deleted: {digest_of(b'top')}"]
    assert set(Blobs(root).all()) == {digest_of(b"base"), shared.id, shared.manifest_digest}
    with pytest.raises(NoSuchImageError):
        remove(Images(root), "app", force=False, in_use=unused)


def test_one_of_several_names_goes_alone_also_from_an_image_in_use(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1", names=("a", "b"))
    assert lines(remove(Images(root), "a", force=False, in_use=running)) == ["Untagged: a:latest"]
    assert Images(root).get("b").id == image.id


def test_by_id_all_names_go_when_forced(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1", names=("a", "b"))
    with pytest.raises(ConflictError, match=r"must be forced\) - image is referenced in multiple repositories"):
        remove(Images(root), image.id[7:19], force=False, in_use=unused)
    events = remove(Images(root), image.id[7:19], force=True, in_use=unused)
    assert lines(events)[:3] == ["Untagged: a:latest", "Untagged: b:latest", f"Deleted: {image.id}"]
    assert list(Blobs(root).all()) == []


def test_by_id_with_one_name_or_none(root: DataRoot, make_image: MakeImage) -> None:
    named, unnamed = make_image(b"1", names=("a",)), make_image(b"2")
    assert lines(remove(Images(root), named.id, force=False, in_use=unused))[0] == "Untagged: a:latest"
    assert lines(remove(Images(root), unnamed.id, force=False, in_use=unused))[0] == f"Deleted: {unnamed.id}"
    assert list(Blobs(root).all()) == []


@pytest.mark.parametrize("use", [stopped, running])
def test_a_container_refuses_the_last_name(
    root: DataRoot, make_image: MakeImage, use: Callable[[str], Sequence[Use]]
) -> None:
    image = make_image(b"1", names=("a",))
    with pytest.raises(ConflictError) as caught:
        remove(Images(root), "a", force=False, in_use=use)
    assert caught.value.message == (
        f'conflict: unable to remove repository reference "a:latest" (must force) - container {ID[:12]} '
        f"is using its referenced image {image.id[7:19]}"
    )
    assert Images(root).get("a")[:3] == image[:3]


def test_by_id_a_running_container_always_refuses_a_stopped_one_unless_forced(
    root: DataRoot, make_image: MakeImage
) -> None:
    image = make_image(b"1", names=("a",))
    for force in (False, True):
        with pytest.raises(
            ConflictError, match=rf"cannot be forced\) - image is being used by running container {ID[:12]}"
        ):
            remove(Images(root), image.id, force=force, in_use=running)
    with pytest.raises(ConflictError, match=rf"must be forced\) - image is being used by stopped container {ID[:12]}"):
        remove(Images(root), image.id, force=False, in_use=stopped)
    assert Images(root).get("a")[:3] == image[:3]
    assert f"Deleted: {image.id}" in lines(remove(Images(root), image.id, force=True, in_use=stopped))


def test_forced_by_name_a_running_container_keeps_the_image(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1", names=("a",))
    assert lines(remove(Images(root), "a", force=True, in_use=running)) == ["Untagged: a:latest"]
    kept = Images(root).get(image.id)
    assert kept.names == ()
    assert kept.created == image.created


def test_a_forced_removal_leaves_the_container_what_it_needs(
    root: DataRoot, make_image: MakeImage, make_record: Callable[..., Record]
) -> None:
    image = make_image(b"1", b"2", names=("a",))
    record = make_record("web", image_id=image.id, diff_ids=image.config.diff_ids)
    ContainerStore(root).create(record, State(), lambda _: None)
    chain = chain_id(image.config.diff_ids)
    trees = FakeTrees(digest_of(b"1"), chain, digest_of(b"stranger"))
    events = remove(Images(root), "a", force=True, in_use=stopped, trees=[trees])
    assert lines(events) == ["Untagged: a:latest", f"Deleted: {image.id}"]
    assert set(Blobs(root).all()) == {image.id, digest_of(b"1"), digest_of(b"2")}
    assert trees.held == {digest_of(b"1")[7:], chain[7:]}
    ContainerStore(root).remove(record.id)
    collect(root, trees=[trees])
    assert list(Blobs(root).all()) == []
    assert trees.held == set()


def test_a_name_is_not_taken_for_an_id(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1")
    named = make_image(b"2", names=(image.id[7:13],))
    remove(Images(root), image.id[7:13], force=False, in_use=unused)
    assert Images(root).ids() == {image.id}
    assert named.id not in Images(root).ids()


def test_by_digest_reference(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1", names=("a",))
    events = remove(Images(root), f"a@{image.manifest_digest}", force=False, in_use=unused)
    assert lines(events)[0] == "Untagged: a:latest"


@pytest.mark.parametrize("lost", ["manifest", "config", "layer"])
def test_damage_never_blocks_removal(root: DataRoot, make_image: MakeImage, lost: str) -> None:
    image = make_image(b"1", names=("a",))
    other = make_image(b"2", names=("b",))
    digest = {"manifest": image.manifest_digest, "config": image.id, "layer": digest_of(b"1")}[lost]
    os.unlink(Blobs(root).path(digest))
    assert lines(remove(Images(root), "a", force=False, in_use=unused))[0] == "Untagged: a:latest"
    assert set(Blobs(root).all()) == {other.id, other.manifest_digest, digest_of(b"2")}
    assert Images(root).get("b")[:3] == other[:3]


def test_a_name_that_is_no_reference_can_be_removed_by_id(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1")
    with changing(root) as index:
        index.set_name("NO REFERENCE", Descriptor("x", image.manifest_digest, 1), image.id)
    assert lines(remove(Images(root), image.id, force=False, in_use=unused))[0] == "Untagged: NO REFERENCE"


def test_a_collection_that_fails_does_not_undo_the_removal(
    root: DataRoot, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image(b"1", names=("a",))

    def fail(blobs: Blobs, digest: str) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(collector.Blobs, "remove", fail)
    assert lines(remove(Images(root), "a", force=False, in_use=unused)) == [
        "Untagged: a:latest",
        f"Deleted: {image.id}",
    ]
    assert Images(root).list() == []


def test_collect_keeps_what_is_staged_and_what_is_told(root: DataRoot) -> None:
    blobs = Blobs(root)
    staged, kept, garbage = blobs.put(b"staged"), blobs.put(b"kept"), blobs.put(b"garbage")
    trees = FakeTrees(staged, kept, garbage, "not-a-layer")
    with Staging(root) as stage:
        stage.lean_on([staged])
        done = collect(root, trees=[trees], keep=[kept])
        assert done == collector.Collected((garbage,), (garbage,), 7)
        assert trees.held == {staged[7:], kept[7:], "not-a-layer"}
    assert set(collect(root, trees=[trees]).blobs) == {staged, kept}


def test_collect_keeps_what_an_index_among_the_blobs_names(root: DataRoot, make_image: MakeImage) -> None:
    image = make_image(b"1", names=("a",))
    blobs = Blobs(root)
    with changing(root) as index:
        value = {"schemaVersion": 2, "manifests": [index.entries[0].raw]}
        data = encode_json(value)
        nested = Descriptor(INDEX, blobs.put(data), len(data))
        index.entries.clear()
        index.add_unnamed(nested, "")
    assert collect(root).blobs == ()
    assert Images(root).list()[0].error
    loop = encode_json({"manifests": [nested.to_json(), {"digest": "x"}]})
    with changing(root) as index:
        index.add_unnamed(Descriptor(INDEX, blobs.put(loop), len(loop)), "")
        index.add_unnamed(Descriptor(INDEX, blobs.put(b'{"manifests": 1}'), 1), "")
    assert collect(root).blobs == ()
    assert blobs.has(image.id)


def test_a_damaged_record_keeps_nothing_and_stops_nothing(
    root: DataRoot, make_image: MakeImage, make_record: Callable[..., Record]
) -> None:
    image = make_image(b"1", names=("a",))
    record = make_record("web", image_id=image.id, diff_ids=image.config.diff_ids)
    odd = make_record("odd", image_id="busybox", diff_ids=("x",))
    for each in (record, odd):
        ContainerStore(root).create(each, State(), lambda _: None)
    Path(root.container_dir(record.id), "container.json").write_text("")
    remove(Images(root), "a", force=True, in_use=unused)
    assert list(Blobs(root).all()) == []


def test_a_layer_adopted_under_a_staging_survives_a_removal_until_it_is_committed(
    root: DataRoot, make_image: MakeImage
) -> None:
    make_image(b"old", names=("old",))
    layer = digest_of(b"new")
    with Staging(root) as stage:
        stage.lean_on([layer])
        Path(stage.path, "layer").write_bytes(b"new")
        Blobs(root).adopt(f"{stage.path}/layer", layer)
        remove(Images(root), "old", force=False, in_use=unused)
        config = ImageConfig.new(architecture="amd64")
        config.add_layer(layer, History())
        image = Images(root).commit(config, [Descriptor(LAYER_TAR, layer, 3)], names=["new"])
    assert collect(root).blobs == ()
    assert Images(root).get("new")[:3] == image[:3]


def test_a_removal_on_a_full_disk_takes_the_reserve(
    root: DataRoot, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image(b"1", names=("a",))
    make_image(b"2", names=("b",))
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if os.path.exists(root.reserve):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(StoreError, match="No space left"):
            Images(root).tag(Images(root).get("a"), "c")
        assert os.path.exists(root.reserve)
        remove(Images(root), "a", force=False, in_use=unused)
    assert not os.path.exists(root.reserve)
    assert [image.names for image in Images(root).list()] == [("docker.io/library/b:latest",)]

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="No space left"):
        remove(Images(root), "b", force=False, in_use=unused)
