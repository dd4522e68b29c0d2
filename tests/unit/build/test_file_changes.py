"""Which files differ between two selections, as far as the layer that was made then can tell."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minidock.build import file_changes
from minidock.build.file_changes import Layer, Source, changes, short
from minidock.build.listings import Listings, listing_of
from minidock.build.selection import Selection, content_digest, select
from minidock.build.tree import SourceTree
from minidock.model.digest import digest_of
from minidock.store.blobs import Blobs
from minidock.store.layout import DataRoot


class Workshop:
    """A context with the directory ``d`` in it, of which a listing is kept, and a layer that was made of it."""

    def __init__(self, path: Path, fd: int) -> None:
        self.root = DataRoot(str(path / "root"), run=str(path / "run"))
        self.root.ensure()
        self.path = path / "context"
        self._tree = SourceTree(fd, name="the context", keep_owner=True)
        self.blobs = Blobs(self.root)

    def select(self) -> Selection:
        found = select(self._tree, "d", "d")
        assert found is not None
        content_digest(found)
        return found

    def keep(self) -> Source:
        selection = self.select()
        Listings(self.root).keep(listing_of(selection))
        return Source("d", True, selection.digest)

    def layer(self, contents: dict[str, bytes], destination: str = "/to/d") -> Layer:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        digest = digest_of(stream.getvalue())
        Path(self.blobs.path(digest)).write_bytes(stream.getvalue())
        return Layer(self.blobs, digest, destination)

    def changes(self, old: Source, layer: Layer) -> list[str]:
        selection = self.select()
        new = Source("d", True, selection.digest)
        return [*changes([old], [new], copied=[selection], listings=Listings(self.root), layer=layer)]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    (tmp_path / "context/d").mkdir(parents=True)
    for name in "ab":
        (tmp_path / "context/d" / name).write_text(name)
    fd = os.open(tmp_path / "context", os.O_RDONLY)
    yield Workshop(tmp_path, fd)
    os.close(fd)


def told(name: str, then: str, now: str) -> str:
    old, new = (short(hashlib.sha256(text.encode()).hexdigest()) for text in (then, now))
    return f"file d/{name} was {old}, is {new}"


@pytest.mark.parametrize("names", [("to/d/{}",), ("./to/d/{}",), ("elsewhere/d/{}",)], ids=str)
def test_contents_are_found_in_the_layer(shop: Workshop, names: tuple[str]) -> None:
    """At the destination, or where a link led from there."""
    old = shop.keep()
    layer = shop.layer({names[0].format(name): name.encode() for name in "ab"})
    (shop.path / "d/b").write_text("B")
    assert shop.changes(old, layer) == [told("b", "b", "B")]
    (shop.path / "d/a").write_text("longer")
    assert shop.changes(old, layer) == [told("a", "a", "longer"), told("b", "b", "B")]


def test_what_the_layer_cannot_tell(shop: Workshop) -> None:
    """A file that was the same beneath is not in the layer; one that is left over it must be, else one of several."""
    old = shop.keep()
    (shop.path / "d/b").write_text("B")
    assert shop.changes(old, shop.layer({"to/d/a": b"a"})) == ["file d/b changed"]
    nothing = Layer(shop.blobs, None, "/to")
    assert shop.changes(old, nothing) == ["one of 2 files changed: d/a …"]
    assert shop.changes(old, Layer(shop.blobs, "sha256:" + "0" * 64, "/to")) == ["one of 2 files changed: d/a …"]
    assert shop.changes(old, shop.layer({"x/a": b"a", "y/a": b"a"}, "/z")) == ["one of 2 files changed: d/a …"]
    (shop.path / "d/b").write_text("longer")
    assert shop.changes(old, nothing) == ["file d/b had 1 bytes, has 6"]


def test_a_layer_that_is_no_tarball(shop: Workshop) -> None:
    old = shop.keep()
    digest = "sha256:" + "1" * 64
    Path(shop.blobs.path(digest)).write_bytes(b"x" * 1024)
    (shop.path / "d/b").write_text("B")
    assert shop.changes(old, Layer(shop.blobs, digest, "/to")) == ["one of 2 files changed: d/a …"]


def test_too_much_is_not_compared(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_changes, "_MOST", 2)
    old = shop.keep()
    layer = shop.layer({f"to/d/{name}": name.encode() for name in "ab"})
    (shop.path / "d/b").write_text("B")
    assert shop.changes(old, layer) == ["file d/b changed"], "a was compared, which leaves b"


@pytest.mark.parametrize(
    ("change", "phrases"),
    [
        (lambda path: os.link(path / "a", path / "c"), ["file d/c is new"]),
        (lambda path: os.mkfifo(path / "p"), ["named pipe d/p is new"]),
        (lambda path: (path / "e").mkdir(), ["directory d/e is new"]),
        (lambda path: (path / "a").unlink(), ["file d/a is gone"]),
        (lambda path: os.chown(path / "a", 5, 6), ["the owner of file d/a was 0:0, is 5:6"]),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a file to somebody else")
def test_entries(shop: Workshop, change: Callable[[Path], object], phrases: list[str]) -> None:
    old = shop.keep()
    change(shop.path / "d")
    assert shop.changes(old, Layer(shop.blobs, None, "/to")) == phrases


def test_hard_links(shop: Workshop) -> None:
    (shop.path / "d/c").write_text("a")
    old = shop.keep()
    (shop.path / "d/c").unlink()
    os.link(shop.path / "d/a", shop.path / "d/c")
    assert shop.changes(old, Layer(shop.blobs, None, "/to")) == ["the hard links of file d/c changed"]


def test_without_a_listing_the_source_is_named(shop: Workshop) -> None:
    old = shop.keep()
    listing = Path(shop.root.cache) / "listings" / old.digest
    (shop.path / "d/b").write_text("B")
    listing.write_bytes(listing.read_bytes() + b"torn")
    assert shop.changes(old, Layer(shop.blobs, None, "/to")) == ["the files of d changed"]
    listing.unlink()
    assert shop.changes(old, Layer(shop.blobs, None, "/to")) == ["the files of d changed"]
