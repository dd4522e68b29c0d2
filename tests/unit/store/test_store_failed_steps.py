"""What failed steps have left, as the store keeps it, and the images that only a name's ending means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from minidock.errors import CorruptObjectError, InvalidReferenceError, NoSuchImageError, StoreError
from minidock.model.oci import LAYER_TAR, Descriptor, History, ImageConfig
from minidock.store.blobs import Blobs
from minidock.store.collector import collect, mark
from minidock.store.failed_steps import FailedStep, FailedSteps
from minidock.store.images import Images
from minidock.store.layout import DataRoot
from minidock.store.staging import sweep


class Killer(Protocol):
    def each_step(self, act: Callable[[], object]) -> Iterator[tuple[int, bool]]: ...


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    found = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    found.ensure()
    return found


def layers_of(root: DataRoot, *contents: str) -> list[Descriptor]:
    data = [content.encode() for content in contents]
    return [Descriptor(LAYER_TAR, Blobs(root).put(each), len(each)) for each in data]


def config_of(layers: list[Descriptor], *, wrote: bool = True, **config: object) -> ImageConfig:
    found = ImageConfig.new(architecture="amd64")
    found.config.update(config)
    for layer in layers:
        found.add_layer(layer.digest, History(created="2024-01-01T00:00:00Z", created_by="RUN x"))
    if not wrote:
        found.add_layer(None, History(created_by="RUN false"))
    return found


def add(root: DataRoot, *contents: str, wrote: bool = True) -> FailedStep:
    layers = layers_of(root, *contents)
    return FailedSteps(root).add(config_of(layers, wrote=wrote), layers)


def test_the_latest_is_failed(root: DataRoot) -> None:
    steps = FailedSteps(root)
    one, two = add(root, "base", "one"), add(root, "base", "two")
    assert [step.id for step in steps.list()] == [two.id, one.id]
    assert steps.find("FAILED") == two
    assert steps.find(one.name) == one == steps.find(one.id) == steps.find(one.id[7:15])
    again = add(root, "base", "one")
    assert again.id == one.id
    assert steps.find("FAILED").id == one.id
    steps.renew(two.id)
    assert steps.find("FAILED").id == two.id
    steps.remove(two.id)
    steps.remove(two.id)
    assert steps.find("FAILED").id == one.id


def test_what_means_none(root: DataRoot) -> None:
    steps = FailedSteps(root)
    with pytest.raises(NoSuchImageError, match="no failed step of a build is kept"):
        steps.find("FAILED")
    one = add(root, "one")
    for text in ("FAILED:", "FAILED:x", f"app:{one.id[7:12]}", "FAILED:FAILED", ""):
        with pytest.raises(NoSuchImageError, match="no such failed step"):
            steps.find(text)
    for number in range(40):
        add(root, f"{number}")
    first = [step.id[7] for step in steps.list()]
    shared = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(NoSuchImageError, match="ambiguous"):
        steps.find(f"FAILED:{shared}")


def test_a_record_comes_after_what_it_names(root: DataRoot) -> None:
    missing = Descriptor(LAYER_TAR, f"sha256:{'0' * 64}", 3)
    with pytest.raises(StoreError, match="is not in the store"):
        FailedSteps(root).add(config_of([missing]), [missing])
    assert FailedSteps(root).list() == []
    assert os.listdir(root.tmp) == []


def test_damaged_records_are_passed_over(root: DataRoot) -> None:
    one = add(root, "one")
    path = Path(root.cache) / "failed" / f"{one.id[7:]}.json"
    whole = json.loads(path.read_text())
    for value in ({}, {"layers": 3, "diff_ids": 3}, {**whole, "diff_ids": [7]}, {**whole, "layers": [{}]}, []):
        path.write_text(json.dumps(value))
        assert FailedSteps(root).list() == []
    path.write_text("{")
    path.with_name("README").write_text("x")
    assert FailedSteps(root).list() == []
    path.write_text(json.dumps({**whole, "layers": [], "diff_ids": []}))
    assert [step.wrote for step in FailedSteps(root).list()] == [False]


def test_it_is_needed_as_long_as_it_is_kept(root: DataRoot) -> None:
    one = add(root, "base", "one")
    needed = {one.id, *one.diff_ids}
    assert needed <= mark(root).blobs
    assert not needed & mark(root, failed_steps=False).blobs
    assert collect(root).blobs == ()
    FailedSteps(root).remove(one.id)
    assert needed <= set(collect(root).blobs)


def test_whether_it_wrote(root: DataRoot) -> None:
    assert add(root, "base", "one").wrote
    assert not add(root, "base", wrote=False).wrote
    assert {step.wrote for step in FailedSteps(root).list()} == {True, False}


def test_as_an_image(root: DataRoot) -> None:
    images = Images(root)
    one = add(root, "base", "one")
    image = images.get("FAILED")
    assert (image.id, image.origin, image.names) == (one.id, one.id, ())
    assert image.config.diff_ids == one.diff_ids
    assert image.size == len("base") + len("one")
    assert {images.get(name).manifest_digest for name in (one.name, one.id, one.id[7:17])} == {image.manifest_digest}
    before = images.get("FAILED~1")
    assert before.config.diff_ids == one.diff_ids[:1]
    assert before.origin == one.id
    assert images.list() == [], "it is no image of the index"
    for text in ("FAILEDX", "FAILED/x"):
        with pytest.raises(InvalidReferenceError, match="lower-case"):
            images.get(text)
    with pytest.raises(NoSuchImageError, match="no such image: nothing"):
        images.get("nothing")
    os.unlink(Blobs(root).path(one.id))
    with pytest.raises(CorruptObjectError, match="is missing"):
        images.get("FAILED")


def test_steps_of_an_image(root: DataRoot) -> None:
    images = Images(root)
    layers = layers_of(root, "a", "bc", "def")
    config = config_of(layers)
    whole = images.commit(config, layers, names=["app"])
    for name in ("app", whole.id, whole.id[7:19], "docker.io/library/app:latest"):
        step = images.get(f"{name}~1")
        assert step.config.diff_ids == config.diff_ids[:2]
        assert (step.size, step.origin, step.names, step.created) == (3, whole.id, (), whole.created)
    assert (images.get("app~0").id, images.get("app~0").origin) == (whole.id, "")
    assert images.get("app~").id == images.get("app~1").id == step.id
    assert images.get("app~1~1").id == images.get("app~2").id != step.id
    assert images.commit(step.config, step.manifest.layers).id == step.id, "as it would be stored"
    with pytest.raises(NoSuchImageError) as caught:
        images.get("app~3")
    assert caught.value.message == "there is no app~3: the image app has 3 steps, app~0 to app~2"
    with pytest.raises(InvalidReferenceError, match="a number of steps has to follow"):
        images.get("app~first")
    with pytest.raises(NoSuchImageError, match="no such image: other"):
        images.get("other~1")
    empty = images.commit(ImageConfig.new(architecture="amd64"), [], names=["empty"])
    assert images.get("empty~0").id == empty.id
    with pytest.raises(NoSuchImageError, match="has only empty~0"):
        images.get("empty~1")


def test_killed_while_it_is_kept(root: DataRoot, killer: Killer) -> None:
    steps, number = FailedSteps(root), 0

    def keep() -> None:
        layers = layers_of(root, "base", f"{number}")
        steps.add(config_of(layers), layers)

    for _ in killer.each_step(keep):
        for step in steps.list():
            assert all(Blobs(root).has(digest) for digest in (step.id, *step.diff_ids))
            steps.remove(step.id)
        sweep(root)
        assert os.listdir(root.tmp) == []
        collect(root)
        assert list(Blobs(root).all()) == []
        number += 1
    assert number > 5


def test_a_plain_name_costs_nothing(root: DataRoot) -> None:
    layers = layers_of(root, "a")
    Images(root).commit(config_of(layers), layers, names=["app"])
    program = (
        "import sys\nfrom minidock.store.images import Images\nfrom minidock.store.layout import DataRoot\n"
        f"Images(DataRoot({root.path!r})).get('app')\n"
        "print([name for name in sys.modules if 'image_steps' in name or 'failed_steps' in name])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
