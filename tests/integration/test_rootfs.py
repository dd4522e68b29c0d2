"""Blobs and layers together, as root and on the real kernel."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import ArchiveError, CorruptObjectError, StoreError
from minidock.model.digest import digest_of
from minidock.model.oci import LAYER_TAR
from minidock.rootfs import Rootfs, is_archive
from minidock.store.layout import DataRoot
from minidock.store.staging import Staging, staged_digests

T0 = 1_500_000_000


@pytest.fixture(params=["overlay2", "overlay2-tarball", "vfs"])
def rootfs(request: pytest.FixtureRequest, tmp_path: Path, open_storage: Callable[..., Rootfs]) -> Rootfs:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    return open_storage(root, request.param)


def _tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), T0
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _import(rootfs: Rootfs, tar: bytes) -> str:
    with Staging(rootfs.root, "import") as staging:
        return rootfs.import_layer(io.BytesIO(tar), staging).digest


def _edit(rootfs: Rootfs, below: tuple[str, ...], change: Callable[[str], object], **options: Any) -> Any:
    with Staging(rootfs.root, "step") as staging:
        writable = f"{staging.path}/writable"
        os.mkdir(writable)
        rootfs.prepare(below, writable)
        with rootfs.open_root(below, writable) as fd:
            change(f"/proc/self/fd/{fd}")
        layer = rootfs.commit(below, writable, staging, **options)
        if layer is not None:
            assert layer.digest in staged_digests(rootfs.root)
        return layer


def _read(rootfs: Rootfs, layers: tuple[str, ...], name: str) -> bytes:
    with rootfs.open_root(layers, None) as fd:
        file = os.open(name, os.O_RDONLY, dir_fd=fd)
        try:
            return os.read(file, 1 << 20)
        finally:
            os.close(file)


def _write(path: str, data: str) -> None:
    with open(path, "w") as file:
        file.write(data)


def _mounts() -> str:
    with open("/proc/self/mountinfo") as file:
        return file.read()


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    before, fds = _mounts(), sorted(os.listdir("/proc/self/fd"))
    yield
    assert _mounts() == before
    assert sorted(os.listdir("/proc/self/fd")) == fds


def test_from_an_import_to_a_committed_layer(rootfs: Rootfs) -> None:
    base = _import(rootfs, _tar(a=b"base"))
    assert base == digest_of(_tar(a=b"base"))
    assert not rootfs.driver.has((base,))
    rootfs.ensure((base,))
    assert _read(rootfs, (base,), "a") == b"base"
    layer = _edit(rootfs, (base,), lambda root: _write(f"{root}/b", "new"))
    assert layer.media_type == LAYER_TAR
    assert layer.size == rootfs.blobs.size(layer.digest)
    assert digest_of(rootfs.blobs.read(layer.digest)) == layer.digest
    assert rootfs.driver.has((base, layer.digest))
    assert _read(rootfs, (base, layer.digest), "b") == b"new"
    assert os.listdir(rootfs.root.tmp) == []


def test_a_line_that_changes_nothing_makes_no_layer(rootfs: Rootfs) -> None:
    base = _import(rootfs, _tar(a=b"base"))
    rootfs.ensure((base,))
    blobs = list(rootfs.blobs.all())
    assert _edit(rootfs, (base,), lambda root: os.chmod(f"{root}/a", 0o644)) is None
    assert _edit(rootfs, (base,), lambda root: os.mkdir(f"{root}/proc"), stubs=["/proc"]) is None
    assert list(rootfs.blobs.all()) == blobs


def test_an_equal_layer_is_not_stored_again(rootfs: Rootfs) -> None:
    def change(root: str) -> None:
        _write(f"{root}/b", "new")
        for path in (f"{root}/b", root):
            os.utime(path, (T0, T0))

    first = _edit(rootfs, (), change)
    inode = os.stat(rootfs.blobs.path(first.digest)).st_ino
    keys = rootfs.driver.keys()
    assert _edit(rootfs, (), change) == first
    assert os.stat(rootfs.blobs.path(first.digest)).st_ino == inode
    assert rootfs.driver.keys() == keys


def test_trees_are_made_again_from_blobs(rootfs: Rootfs) -> None:
    base = _import(rootfs, _tar(a=b"base"))
    rootfs.ensure((base,))
    layer = _edit(rootfs, (base,), lambda root: [os.unlink(f"{root}/a"), os.symlink("x", f"{root}/s")])
    chain = (base, layer.digest)
    for key in list(rootfs.driver.keys()):
        rootfs.driver.remove(key)
    with pytest.raises(StoreError, match="cannot find the layers"):
        rootfs.mounts(chain, None)
    rootfs.ensure(chain)
    with rootfs.open_root(chain, None) as fd:
        assert os.readlink("s", dir_fd=fd) == "x"
        with pytest.raises(FileNotFoundError):
            os.stat("a", dir_fd=fd)
    rootfs.settle()


def test_of_several_users_one_makes_the_layer(rootfs: Rootfs, monkeypatch: pytest.MonkeyPatch) -> None:
    base = _import(rootfs, _tar(**{f"f{n}": b"x" * 1000 for n in range(200)}))
    names = rootfs.driver.keys()
    for key in names:
        rootfs.driver.remove(key)
    calls = []
    making = "publish" if rootfs.driver.form.name == "tarball" else "unpack"
    original = getattr(type(rootfs.driver), making)

    def counted(self: Any, *args: Any, **options: Any) -> None:
        calls.append(1)
        original(self, *args, **options)

    monkeypatch.setattr(type(rootfs.driver), making, counted)
    threads = [threading.Thread(target=rootfs.ensure, args=((base,),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert rootfs.driver.has((base,))


def test_a_damaged_or_missing_blob_is_never_a_layer(rootfs: Rootfs) -> None:
    base = _import(rootfs, _tar(a=b"base" * 2000))
    path = rootfs.blobs.path(base)
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"X")
    with pytest.raises(CorruptObjectError, match="has another digest"):
        rootfs.ensure((base,))
    assert rootfs.driver.keys() == []
    assert os.listdir(rootfs.root.tmp) == []
    os.unlink(path)
    with pytest.raises(CorruptObjectError, match="is missing"):
        rootfs.ensure((base,))


def test_compressed_imports_are_stored_plain(rootfs: Rootfs) -> None:
    plain = _tar(a=b"x" * 5000)
    assert _import(rootfs, gzip.compress(plain)) == digest_of(plain)


@pytest.mark.parametrize(
    "tar",
    [b"", b"no tar at all", _tar(a=b"x" * 900)[:1024], _tar(a=b"x")[:1024], gzip.compress(_tar(a=b"x"))[:40]],
    ids=["empty", "text", "cut in data", "no end", "cut gzip"],
)
def test_bad_imports_leave_nothing(rootfs: Rootfs, tar: bytes) -> None:
    with pytest.raises(ArchiveError):
        _import(rootfs, tar)
    assert list(rootfs.blobs.all()) == []
    assert os.listdir(rootfs.root.tmp) == []


def test_an_import_that_reaches_outside_is_refused_at_once(rootfs: Rootfs) -> None:
    with pytest.raises(ArchiveError, match="reach outside"):
        _import(rootfs, _tar(**{"../x": b""}))


def test_what_a_layer_cannot_hold_leaves_nothing(rootfs: Rootfs) -> None:
    with pytest.raises(ArchiveError):
        _edit(rootfs, (), lambda root: _write(f"{root}/.wh.x", ""))
    assert list(rootfs.blobs.all()) == []
    assert rootfs.driver.keys() == []


def test_a_read_only_root_is_read_only(rootfs: Rootfs) -> None:
    base = _import(rootfs, _tar(a=b"base"))
    rootfs.ensure((base,))
    for layers in ((), (base,)):
        with rootfs.open_root(layers, None) as fd, pytest.raises(OSError, match="Read-only"):
            os.mkdir("x", dir_fd=fd)


def test_changes(rootfs: Rootfs, tmp_path: Path) -> None:
    base = _import(rootfs, _tar(a=b"base", b=b""))
    rootfs.ensure((base,))
    writable = f"{rootfs.root.tmp}/w"
    os.mkdir(writable)
    rootfs.prepare((base,), writable)
    with rootfs.open_root((base,), writable) as fd:
        os.unlink("a", dir_fd=fd)
        os.mkdir("c", dir_fd=fd)
    assert [tuple(change) for change in rootfs.changes((base,), writable)] == [("D", "/a"), ("A", "/c")]


def test_add_unpacks_into_the_root(rootfs: Rootfs, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    source = tmp_path / "source"
    (source / "lib").mkdir(parents=True)
    (source / "lib/x").write_text("x")
    os.link(source / "lib/x", source / "hard")
    (source / "there").mkdir(mode=0o700)
    os.symlink(outside, source / "out")
    os.mkfifo(source / "pipe", 0o600)
    os.setxattr(source / "hard", "user.k", b"v")
    archive = tmp_path / "a.tar.gz"
    subprocess.run(["tar", "--xattrs", "-czf", archive, "-C", source, "."], check=True)
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("out/evil"))

    def change(root: str) -> None:
        fd = os.open(root, os.O_PATH)
        os.makedirs(f"{root}/usr/lib")
        os.mkdir(f"{root}/dst")
        os.symlink("/usr/lib", f"{root}/dst/lib")
        os.mkdir(f"{root}/dst/there")
        _write(f"{root}/dst/there/kept", "")
        with open(archive, "rb") as file:
            assert is_archive(file)
            rootfs.extract(file, fd, "/dst/")
            file.seek(0)
            rootfs.extract(file, fd, "new/place")
        with open(tmp_path / "evil.tar", "rb") as file:
            rootfs.extract(file, fd, "dst")
        os.close(fd)

    layer = _edit(rootfs, (), change)
    assert os.listdir(outside) == []
    with rootfs.open_root((layer.digest,), None) as fd:
        lib, hard = os.stat("dst/lib/x", dir_fd=fd), os.stat("dst/hard", dir_fd=fd)
        assert stat.S_ISDIR(os.lstat("dst/lib", dir_fd=fd).st_mode)
        assert (lib.st_ino, lib.st_nlink) == (hard.st_ino, 2)
        assert os.stat("dst/there", dir_fd=fd).st_mode & 0o777 == 0o700
        assert os.stat("dst/there/kept", dir_fd=fd).st_size == 0
        assert os.stat("dst/there", dir_fd=fd).st_mtime == int(os.stat(source / "there").st_mtime)
        assert stat.S_ISFIFO(os.stat("dst/pipe", dir_fd=fd).st_mode)
        assert os.readlink("new/place/out", dir_fd=fd) == str(outside)
        assert os.stat(f"{outside}/evil"[1:], dir_fd=fd).st_size == 0


def test_add_of_a_bad_archive(rootfs: Rootfs) -> None:
    with rootfs.open_root((), None) as fd, pytest.raises(ArchiveError):
        rootfs.extract(io.BytesIO(b"x" * 600), fd, "")
    with rootfs.open_root((), None) as fd, pytest.raises(StoreError, match="Read-only"):
        rootfs.extract(io.BytesIO(_tar(a=b"")), fd, "")


def test_a_full_or_broken_file_system_is_explained(rootfs: Rootfs) -> None:
    with pytest.raises(StoreError, match=r"cannot make the writable layer: .*/nowhere") as caught:
        rootfs.prepare((), f"{rootfs.root.tmp}/nowhere")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
