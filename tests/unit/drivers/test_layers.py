"""Layers that take their place on a file system without renameat2's flags."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minidock.drivers import layers as module
from minidock.drivers.layers import Layers

KEY = "a" * 64


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layers:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(module, "renameat2", refuse)
    (tmp_path / "layers").mkdir()
    return Layers(str(tmp_path / "layers"), chained=False)


def staged(tmp_path: Path, content: str) -> str:
    folder = tmp_path / f"staged-{content}"
    (folder / "tree").mkdir(parents=True)
    (folder / "tree/file").write_text(content)
    return str(folder)


def content_of(layers: Layers) -> str:
    return Path(layers.tree(KEY), "file").read_text()


def test_a_new_layer_is_there_whole(layers: Layers, tmp_path: Path) -> None:
    layers.publish(staged(tmp_path, "new"), KEY)
    assert layers.is_whole(KEY)
    assert content_of(layers) == "new"


def test_the_layer_that_is_there_stays(layers: Layers, tmp_path: Path) -> None:
    layers.publish(staged(tmp_path, "first"), KEY)
    second = staged(tmp_path, "second")
    layers.publish(second, KEY)
    assert content_of(layers) == "first"
    assert Path(second, "tree/file").read_text() == "second"


def test_a_torn_layer_makes_room(layers: Layers, tmp_path: Path) -> None:
    """Of its files none is among those of the layer that comes in its place."""
    layers.publish(staged(tmp_path, "torn"), KEY)
    Path(layers.tree(KEY), "rest").touch()
    for name in os.listdir(f"{layers.directory}/{KEY}"):
        if name != "tree":
            os.unlink(f"{layers.directory}/{KEY}/{name}")
    assert not layers.is_whole(KEY)
    layers.publish(staged(tmp_path, "new"), KEY)
    assert layers.is_whole(KEY)
    assert content_of(layers) == "new"
    assert os.listdir(layers.tree(KEY)) == ["file"]


def test_any_other_refusal_is_told(layers: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, "renameat2", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        layers.publish(staged(tmp_path, "new"), KEY)
    assert layers.keys() == []
