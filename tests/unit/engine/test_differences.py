"""What differs between two builds, in words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from minidock.build.export import Finished
from minidock.drivers.tar_format import DIRECTORY, SYMLINK, Entry
from minidock.drivers.tar_writer import TarWriter
from minidock.engine.differences import Difference, find_difference
from minidock.model.oci import History, ImageConfig
from minidock.store.blobs import Blobs
from minidock.store.layout import DataRoot

ROOT = Entry("", DIRECTORY, 0o755, mtime=5)
A = Entry("d/a", size=1, mtime=5)
D = Entry("d", DIRECTORY, 0o755, mtime=5)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    return Blobs(root)


def finished(blobs: Blobs, *layers: Any, **config: Any) -> Finished:
    """A build of steps, each of which made a layer of entries and contents, or None."""
    made = ImageConfig.new(architecture="amd64")
    made.config.update(config)
    for number, layer in enumerate(layers):
        diff_id = None
        if layer is not None:
            stream = io.BytesIO()
            writer = TarWriter(stream)
            for entry in layer:
                writer.add_bytes(entry, b"x" * entry.size) if entry.size else writer.add(entry)
            writer.finish()
            diff_id = blobs.put(stream.getvalue())
        made.add_layer(diff_id, History(created_by=f"step {number}"))
    return Finished(made, (), (), None, None)  # type: ignore[arg-type]


def difference(blobs: Blobs, one: list[Entry] | None, other: list[Entry] | None) -> Difference | None:
    same = [ROOT, D]
    return find_difference(finished(blobs, same, one), finished(blobs, same, other), (blobs, blobs))


def test_nothing_differs(blobs: Blobs) -> None:
    assert difference(blobs, [ROOT, D, A], [ROOT, D, A]) is None
    assert difference(blobs, None, None) is None


def test_what_is_there_once(blobs: Blobs) -> None:
    assert difference(blobs, [ROOT, D], [ROOT, D, A]) == Difference("step 1", "/d/a", "existence", "nothing", "a file")
    assert difference(blobs, [ROOT], None) == Difference("step 1", "/", "existence", "a directory", "nothing")


@pytest.mark.parametrize(
    ("change", "field", "first", "second"),
    [
        ({"mode": 0o600}, "mode", "0644", "0600"),
        ({"uid": 7}, "owner", "0:0", "7:0"),
        ({"xattrs": {"user.x": b"1"}}, "extended attributes", "none", "user.x=31"),
        ({"mtime": 6}, "mtime", "1970-01-01T00:00:05Z", "1970-01-01T00:00:06Z"),
        ({"mtime": -6}, "mtime", "1970-01-01T00:00:05Z", "-6 s after 1970"),
        ({"type": SYMLINK, "size": 0, "linkname": "x"}, "type", "a file", "a symbolic link"),
    ],
)
def test_fields(blobs: Blobs, change: dict[str, Any], field: str, first: str, second: str) -> None:
    other = [ROOT._replace(mtime=9), D._replace(mtime=9), A._replace(**change)]
    assert difference(blobs, [ROOT, D, A], other) == Difference("step 1", "/d/a", field, first, second)


def test_contents_by_their_digests(blobs: Blobs) -> None:
    found = difference(blobs, [ROOT, D, A], [ROOT, D, A._replace(size=2)])
    assert found is not None
    assert (found.path, found.field, found.first[:9], found.second[:9]) == ("/d/a", "content", "sha256:2d", "sha256:5d")


def test_of_directories_the_innermost(blobs: Blobs) -> None:
    found = difference(blobs, [ROOT, D], [ROOT._replace(mtime=9), D._replace(mtime=9)])
    assert found is not None
    assert found.path == "/d"


def test_order_alone(blobs: Blobs) -> None:
    found = difference(blobs, [ROOT, D, A], [ROOT, A, D])
    assert found is not None
    assert found.field == "order of entries"


def test_the_first_step_counts(blobs: Blobs) -> None:
    one, other = finished(blobs, [ROOT], [D]), finished(blobs, [D], [ROOT])
    found = find_difference(one, other, (blobs, blobs))
    assert found is not None
    assert found.step == "step 0"


def test_the_configuration(blobs: Blobs) -> None:
    one, other = finished(blobs, [ROOT], Labels={"a": "1"}, Env=["x"]), finished(blobs, [ROOT], Labels={"a": "2"})
    assert find_difference(one, other, (blobs, blobs)) == Difference("", "config.Labels.a", "value", "'1'", "'2'")
    other.config.config["Labels"] = {"a": "1"}
    assert find_difference(one, other, (blobs, blobs)) == Difference("", "config.Env", "value", "['x']", "None")
    other.config.config["Env"] = ["y"]
    assert find_difference(one, other, (blobs, blobs)) == Difference("", "config.Env[0]", "value", "'x'", "'y'")


def test_other_steps(blobs: Blobs) -> None:
    one, other = finished(blobs, None), finished(blobs, None)
    other.config.raw["history"][0]["created_by"] = "else"
    assert find_difference(one, other, (blobs, blobs)) == Difference("", "history", "created_by", "step 0", "else")
