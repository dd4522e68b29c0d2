"""EROFS images over tarballs: mounting them from files and from loop devices, and reading ahead."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import erofs, loop, mount

pytestmark = pytest.mark.usefixtures("mount_table", "file_backed_mounts")

CONTENT = b"read from the tarball"
DEVICES = Path("/sys/class/bdi")


@contextmanager
def mounted(index: str, tar: str, *, loop: bool = False) -> Iterator[Path]:
    fd = erofs.mount(index, tar, loop=loop)
    try:
        assert not os.get_inheritable(fd)
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.fixture
def image(tmp_path: Path, make_image: Callable[[Path, bytes], Any]) -> Any:
    return make_image(tmp_path, CONTENT)


@pytest.fixture
def loop_devices() -> None:
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("the kernel has no loop devices")


@pytest.fixture(params=["file", "loop"])
def by_loop(request: pytest.FixtureRequest) -> bool:
    if request.param == "loop":
        request.getfixturevalue("loop_devices")
    return bool(request.param == "loop")


def test_content_comes_from_the_tarball(image: Any, by_loop: bool) -> None:
    with mounted(image.meta, image.tar, loop=by_loop) as root:
        assert (root / "content").read_bytes() == CONTENT
        with pytest.raises(OSError, match="Read-only"):
            (root / "new").touch()


def test_the_files_may_go(image: Any, by_loop: bool) -> None:
    with mounted(image.meta, image.tar, loop=by_loop) as root:
        os.unlink(image.meta)
        os.unlink(image.tar)
        assert (root / "content").read_bytes() == CONTENT


def test_paths_of_any_length(tmp_path: Path, make_image: Callable[[Path, bytes], Any], by_loop: bool) -> None:
    image = make_image(tmp_path / "/".join(["d" * 100] * 4), CONTENT)
    before = os.listdir("/proc/self/fd")
    with mounted(image.meta, image.tar, loop=by_loop) as root:
        assert (root / "content").read_bytes() == CONTENT
    assert os.listdir("/proc/self/fd") == before


def test_each_call_makes_a_file_system(image: Any) -> None:
    with mounted(image.meta, image.tar) as one, mounted(image.meta, image.tar) as other:
        assert one.stat().st_dev != other.stat().st_dev


def test_what_is_missing_or_no_image(tmp_path: Path, image: Any, by_loop: bool) -> None:
    missing = str(tmp_path / "missing")
    before = os.listdir("/proc/self/fd")
    for index, tar in ((missing, image.tar), (image.meta, missing)):
        with pytest.raises(FileNotFoundError):
            erofs.mount(index, tar, loop=by_loop)
    (tmp_path / "text").write_bytes(b"this is no image".ljust(8192))
    with pytest.raises(OSError, match="text") as caught:
        erofs.mount(str(tmp_path / "text"), image.tar, loop=by_loop)
    assert caught.value.errno == errno.EINVAL
    assert os.listdir("/proc/self/fd") == before


def test_an_index_that_lies_on_no_disk(tmp_path: Path, image: Any, loop_devices: None) -> None:
    (tmp_path / "memory").mkdir()
    mount.mount("memory", str(tmp_path / "memory"), "tmpfs", 0)
    try:
        index = tmp_path / "memory/index"
        index.write_bytes(Path(image.meta).read_bytes())
        with pytest.raises(OSError, match="index") as caught:
            erofs.mount(str(index), image.tar)
        assert caught.value.errno == errno.ENOTBLK
        with mounted(str(index), image.tar, loop=True) as root:
            assert (root / "content").read_bytes() == CONTENT
    finally:
        mount.umount2(str(tmp_path / "memory"), mount.MNT_DETACH)


def read_ahead_of(new: set[str]) -> list[int]:
    return [int((DEVICES / name / "read_ahead_kb").read_text()) for name in new]


def test_reads_ahead_as_the_disk_does(image: Any) -> None:
    before = set(os.listdir(DEVICES))
    device = os.stat(image.tar).st_dev
    disk = DEVICES / f"{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    wanted = max(1024, int(disk.read_text()) if disk.exists() else 0)
    with mounted(image.meta, image.tar) as one, mounted(image.meta, image.tar) as other:
        assert one.exists()
        assert other.exists()
        sizes = read_ahead_of(set(os.listdir(DEVICES)) - before)
    assert sizes.count(wanted) >= 2


def test_without_sysfs(image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erofs, "_BACKING_DEVICES", str(tmp_path / "missing"))
    with mounted(image.meta, image.tar) as root:
        assert (root / "content").read_bytes() == CONTENT


def test_a_loop_device_is_free_again(image: Any, loop_devices: None) -> None:
    with loop.attached(image.tar) as path:
        backing = Path("/sys/block", os.path.basename(path), "loop/backing_file")
        assert backing.read_text().strip() == image.tar
        assert Path("/sys/block", os.path.basename(path), "ro").read_text().strip() == "1"
        with open(path, "rb") as file:
            assert file.read().startswith(CONTENT)
    assert not (backing.exists() and backing.read_text().strip() == image.tar)


def test_a_loop_device_that_another_takes(image: Any, loop_devices: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel names a free device, and until it is configured others may take it.
    real = fcntl.ioctl
    with loop.attached(image.tar) as taken:
        answers = [int(taken.removeprefix("/dev/loop"))] * 3

        def ioctl(fd: int, request: int, argument: Any = 0) -> Any:
            if request == loop._LOOP_CTL_GET_FREE and answers:
                return answers.pop()
            return real(fd, request, argument)

        monkeypatch.setattr(fcntl, "ioctl", ioctl)
        before = os.listdir("/proc/self/fd")
        with loop.attached(image.meta) as path:
            assert path != taken
            assert answers == []
        assert os.listdir("/proc/self/fd") == before


def test_no_loop_devices(image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_CONTROL", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="missing"):
        erofs.mount(image.meta, image.tar, loop=True)
    with pytest.raises(FileNotFoundError), loop.attached(str(tmp_path / "none")):
        pass
