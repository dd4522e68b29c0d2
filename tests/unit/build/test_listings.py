"""What is kept of a selection beside the cache."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidock.build.cache import BuildCache, CacheRecord, make_key
from minidock.build.listings import Listing, Listings, amount, listing_of
from minidock.build.selection import Selection, content_digest, select
from minidock.build.tree import SourceTree
from minidock.errors import CorruptObjectError
from minidock.store.layout import DataRoot


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[SourceTree]:
    (tmp_path / "tree").mkdir()
    fd = os.open(tmp_path / "tree", os.O_RDONLY)
    yield SourceTree(fd, name="the tree", keep_owner=False)
    os.close(fd)


def selected(tree: SourceTree, path: str) -> Selection:
    found = select(tree, path, os.path.basename(path))
    assert found is not None
    content_digest(found)
    return found


def test_every_entry_is_read_back(root: DataRoot, tree: SourceTree, tmp_path: Path) -> None:
    top = tmp_path / "tree/d"
    (top / "e").mkdir(parents=True)
    (top / "e/a b\n\xff").write_bytes(b"12345")
    os.link(top / "e/a b\n\xff", top / "e/z")
    os.symlink("to nowhere", top / "link")
    with open(os.fsencode(top) + b"/\xfe", "wb"):
        pass
    os.chmod(os.fsencode(top) + b"/\xfe", 0o4755)
    os.setxattr(os.fsencode(top) + b"/\xfe", "user.x", b"a\0b 1 2")
    listing = listing_of(selected(tree, "d"))
    Listings(root).keep(listing)
    found = Listings(root).find(listing.digest)
    assert found == listing._replace(tree=None)
    items = found.items()
    assert {*items} == {"e", "e/a b\n\xff", "e/z", "link", os.fsdecode(b"\xfe")}
    odd = items[os.fsdecode(b"\xfe")]
    assert (odd.mode, odd.xattrs) == (stat.S_IFREG | 0o4755, b"user.x\x007 a\0b 1 2")
    assert items["link"].link == "to nowhere"
    assert sorted((items[name].has_content, items[name].link) for name in ("e/a b\n\xff", "e/z")) == [
        (False, "e/a b\n\xff"),
        (True, ""),
    ]
    assert amount([found]) == (4, 5)


def test_a_file_alone_has_the_digest_of_its_content(root: DataRoot, tree: SourceTree, tmp_path: Path) -> None:
    (tmp_path / "tree/f").write_bytes(b"1")
    listing = listing_of(selected(tree, "f"))
    assert listing.contents == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    assert ({*listing.items()}, listing.base) == ({""}, "")


def test_what_cannot_be_read_is_no_listing(root: DataRoot, tree: SourceTree, tmp_path: Path) -> None:
    (tmp_path / "tree/f").write_bytes(b"1")
    listing = listing_of(selected(tree, "f"))
    listings = Listings(root)
    assert listings.find(listing.digest) is None
    listings.keep(listing)
    path = Path(root.cache) / "listings" / listing.digest
    for damage in (b"", b"[]\n", b'{"path": 1, "directory": false, "contents": ""}\n', b"\xff\n"):
        path.write_bytes(damage)
        assert listings.find(listing.digest) is None
    for name in ("../build/x", "..", ""):
        assert listings.find(name) is None
    with pytest.raises(CorruptObjectError, match="the listing of 'f' cannot be read"):
        listing._replace(heads=b"100644 0 0").items()
    with pytest.raises(CorruptObjectError, match="the listing of 'f' cannot be read"):
        listing._replace(heads=b"100644 0 0 1 0 1\0f\0\0").items()


def test_a_listing_that_is_too_long_or_has_no_room_is_not_kept(root: DataRoot) -> None:
    listings = Listings(root)
    long = Listing("0" * 64, "", True, "", b"x" * ((4 << 20) + 1))
    listings.keep(long)
    assert listings.find("0" * 64) is None
    Path(root.cache, "listings").write_text("in the way")
    listings.keep(long._replace(heads=b""))
    assert Path(root.cache, "listings").read_text() == "in the way"


def test_listings_go_with_their_records(root: DataRoot, tree: SourceTree, tmp_path: Path) -> None:
    cache, selections = BuildCache(root), []
    for name in "abc":
        (tmp_path / "tree" / name).write_text(name)
        selections.append(selected(tree, name))
    a, b, c = selections
    keys = [
        make_key((), files=[["a", False, a.digest]])._replace(copied=(a,)),
        make_key((), mounts=[{"target": "/m", "files": b.digest}])._replace(copied=(b,)),
        make_key((), remote=[["files", ["c", False, c.digest]]])._replace(copied=(c,)),
    ]
    for key in keys:
        cache.save(key, CacheRecord(None, "then"))
    Listings(root).collect()
    kept = Path(root.cache) / "listings"
    assert {path.name for path in kept.iterdir()} == {a.digest, b.digest, c.digest}
    for key in keys:
        os.unlink(f"{root.cache}/build/{key.digest[7:]}.json")
        Listings(root).collect()
    assert list(kept.iterdir()) == []
