"""What was fetched before: records and bodies, bounded, and clean after any interruption."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minidock.build.sources import http_cache
from minidock.build.sources.http_cache import HttpCache, HttpRecord
from minidock.model.digest import digest_of
from minidock.store.layout import DataRoot


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    return root


def save(root: DataRoot, url: str, content: bytes, *, limit: int = 1 << 20, etag: str = '"1"') -> HttpRecord | None:
    path = f"{root.tmp}/body"
    Path(path).write_bytes(content)
    cache = HttpCache(root, limit=limit)
    cache.save(url, path, digest=digest_of(content), mtime=5, etag=etag, last_modified="")
    os.unlink(path)
    return cache.find(url)


def names(root: DataRoot) -> list[str]:
    return sorted(os.listdir(f"{root.cache}/http"))


def test_kept_and_linked(root: DataRoot, tmp_path: Path) -> None:
    assert HttpCache(root).find("http://h/x?secret=1") is None
    record = save(root, "http://h/x?secret=1", b"content")
    assert record is not None
    assert (record.size, record.mtime, record.etag, record.url) == (7, 5, '"1"', "http://h/x")
    assert HttpCache(root).link(record, str(tmp_path / "linked"))
    assert (tmp_path / "linked").read_bytes() == b"content"
    assert "secret" not in "".join(Path(f"{root.cache}/http/{n}").read_text() for n in names(root))
    assert HttpCache(root).find("http://h/x") is None


def test_a_new_body_replaces_the_old_one(root: DataRoot) -> None:
    old = save(root, "http://h/x", b"old")
    new = save(root, "http://h/x", b"new", etag='"2"')
    assert old is not None
    assert new is not None
    assert len(names(root)) == 2
    assert not HttpCache(root).link(old, f"{root.tmp}/y")
    assert HttpCache(root).link(new, f"{root.tmp}/z")


def test_the_least_recently_used_go_first(root: DataRoot) -> None:
    for number in range(3):
        record = save(root, f"http://h/{number}", bytes(100), limit=300)
        assert record is not None
        os.utime(f"{root.cache}/http/{record.key}.json", (number, number))
    first = HttpCache(root).find("http://h/0")
    assert first is not None
    HttpCache(root).link(first, f"{root.tmp}/use")
    save(root, "http://h/3", bytes(100), limit=300)
    assert [HttpCache(root).find(f"http://h/{number}") is not None for number in range(4)] == [True, False, True, True]
    assert save(root, "http://h/huge", bytes(301), limit=300) is None


def test_entries_and_removal(root: DataRoot) -> None:
    cache = HttpCache(root)
    assert cache.entries() == []
    record = save(root, "http://h/x", b"content")
    assert cache.entries() == [record]
    assert record is not None
    assert cache.remove(record.key) == 7
    assert cache.remove(record.key) == 0, "one that is gone is fine"
    assert names(root) == []


@pytest.mark.parametrize(
    "damage", ["no body", "short body", "no record", "json", "fields", "digest", "foreign", "link"]
)
def test_what_is_damaged_counts_as_missing_and_is_removed(
    root: DataRoot, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = save(root, "http://h/x", b"content")
    assert record is not None
    body, note = f"{root.cache}/http/{record.key}.{record.digest[7:]}", Path(f"{root.cache}/http/{record.key}.json")
    if damage == "no body":
        os.unlink(body)
    elif damage == "short body":
        os.truncate(body, 3)
    elif damage == "no record":
        note.unlink()
    elif damage == "json":
        note.write_text("{")
    elif damage == "fields":
        note.write_text(json.dumps({**json.loads(note.read_text()), "size": "7"}))
    elif damage == "digest":
        note.write_text(json.dumps({**json.loads(note.read_text()), "digest": "sha256:../../x"}))
    elif damage == "link":
        note.unlink()
        note.symlink_to("/etc/passwd")
    else:
        os.mkdir(f"{root.cache}/http/foreign")
    monkeypatch.setattr(http_cache, "_GRACE", -1)
    cache = HttpCache(root)
    assert (cache.find("http://h/x") is None) == (damage != "foreign")
    assert cache.entries() == ([record] if damage == "foreign" else [])
    assert len(names(root)) == (2 if damage == "foreign" else 0)


def test_a_body_whose_record_is_to_come_stays(root: DataRoot) -> None:
    record = save(root, "http://h/x", b"content")
    assert record is not None
    os.unlink(f"{root.cache}/http/{record.key}.json")
    assert HttpCache(root).entries() == []
    assert len(names(root)) == 1
