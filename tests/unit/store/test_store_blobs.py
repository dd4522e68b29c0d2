from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from minidock.errors import CorruptObjectError, InvalidReferenceError, StoreError
from minidock.model.digest import digest_of
from minidock.store.blobs import Blobs
from minidock.store.layout import DataRoot

ABSENT = "sha256:" + "0" * 64


def test_put_and_read(root: DataRoot) -> None:
    blobs = Blobs(root)
    digest = blobs.put(b"hello")
    assert digest == digest_of(b"hello")
    assert blobs.has(digest)
    assert blobs.read(digest) == b"hello"
    assert blobs.size(digest) == 5
    with blobs.open(digest) as file:
        assert file.read() == b"hello"
    assert stat.S_IMODE(os.stat(blobs.path(digest)).st_mode) == 0o400
    assert list(blobs.all()) == [digest]
    assert os.listdir(root.tmp) == []


def test_putting_what_is_there_writes_nothing(root: DataRoot) -> None:
    blobs = Blobs(root)
    path = blobs.path(blobs.put(b"x"))
    before = os.stat(path)
    assert blobs.put_all([b"x", b"x"]) == (digest_of(b"x"),) * 2
    assert os.stat(path).st_ino == before.st_ino


def test_a_blob_of_the_wrong_length_is_written_again(root: DataRoot) -> None:
    blobs = Blobs(root)
    digest = blobs.put(b"whole")
    os.chmod(blobs.path(digest), 0o600)
    Path(blobs.path(digest)).write_bytes(b"")
    blobs.put(b"whole")
    assert blobs.read(digest) == b"whole"


def test_a_blob_is_checked_when_it_is_read(root: DataRoot) -> None:
    blobs = Blobs(root)
    digest = blobs.put(b"good")
    os.chmod(blobs.path(digest), 0o600)
    Path(blobs.path(digest)).write_bytes(b"evil")
    with pytest.raises(CorruptObjectError, match="damaged"):
        blobs.read(digest)
    with pytest.raises(CorruptObjectError, match="more than the 3"):
        blobs.read(digest, limit=3)


def test_a_missing_blob_is_named(root: DataRoot) -> None:
    blobs = Blobs(root)
    for ask in (blobs.read, blobs.size, blobs.open):
        with pytest.raises(CorruptObjectError, match=f"{ABSENT} is missing"):
            ask(ABSENT)
    assert not blobs.has(ABSENT)
    assert blobs.remove(ABSENT) == 0


@pytest.mark.parametrize("text", ["sha256:../../../etc/passwd", "sha512:" + "0" * 64, "sha256:" + "A" * 64, ""])
def test_a_digest_is_never_a_path(root: DataRoot, text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        Blobs(root).path(text)


def test_adopt_moves_the_file(root: DataRoot) -> None:
    blobs, path = Blobs(root), Path(root.tmp, "layer")
    path.write_bytes(b"layer")
    inode = path.stat().st_ino
    blobs.adopt(str(path), digest_of(b"layer"))
    assert not path.exists()
    assert os.stat(blobs.path(digest_of(b"layer"))).st_ino == inode


def test_adopting_what_is_there_drops_the_copy(root: DataRoot) -> None:
    blobs, path = Blobs(root), Path(root.tmp, "layer")
    digest = blobs.put(b"layer")
    inode = os.stat(blobs.path(digest)).st_ino
    path.write_bytes(b"layer")
    blobs.adopt(str(path), digest)
    assert not path.exists()
    assert os.stat(blobs.path(digest)).st_ino == inode


def test_blobs_are_on_disk_before_any_has_its_name(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("fdatasync", "rename", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _n=name, _r=real: (calls.append(_n), _r(*a))[1])
    staged = []
    for content in (b"1", b"2"):
        path = Path(root.tmp, content.decode())
        path.write_bytes(content)
        staged.append((str(path), digest_of(content)))
    Blobs(root).adopt_all(staged)
    assert calls == ["fdatasync", "fdatasync", "rename", "rename", "fsync"]


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_an_error_of_the_disk_is_fatal_for_the_blob(root: DataRoot, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = Path(root.tmp, "layer")
    path.write_bytes(b"layer")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StoreError, match="Input/output error"):
        Blobs(root).adopt(str(path), digest_of(b"layer"))
    with pytest.raises(StoreError, match="Input/output error"):
        Blobs(root).put(b"other")
    assert Blobs(root).has(digest_of(b"layer")) == (call == "fsync")


def test_an_unreadable_blob(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(root)
    digest = blobs.put(b"x")

    def fail(fd: int, count: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(StoreError, match="cannot read the blob"):
        blobs.read(digest)


def test_remove_tells_the_bytes_and_all_passes_over_strangers(root: DataRoot) -> None:
    blobs = Blobs(root)
    digest = blobs.put(b"12345")
    Path(root.blobs, "README").write_text("")
    assert list(blobs.all()) == [digest]
    assert blobs.remove(digest) == 5
    assert list(blobs.all()) == []
