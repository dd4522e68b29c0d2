"""Volumes with what only root has: owners, devices, attributes; processes that meet, and processes that are killed."""

from __future__ import annotations

import os
import random
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import process
from minidock.store.layout import DataRoot
from minidock.volumes.volumes import Volumes

RUN = ("run", "--rm", "--network", "none")
ENTRIES = ["_data", "lock", "volume.json"]


@pytest.fixture
def store(tmp_path: Path) -> Volumes:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    store = Volumes(root)
    store.create("vol")
    return store


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A tree whose /d holds 300 small files in 3 folders."""
    for folder in range(3):
        path = tmp_path / "image" / "d" / str(folder)
        path.mkdir(parents=True)
        for name in range(100):
            (path / str(name)).write_text(f"{folder}-{name}")
    return tmp_path / "image"


def populate(store: Volumes, image: Path) -> bool:
    fd = os.open(image, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return store.populate("vol", fd, "/d")
    finally:
        os.close(fd)


def content(store: Volumes) -> dict[str, str]:
    data = Path(store.path_of("vol"))
    return {str(path.relative_to(data)): path.read_text() for path in data.rglob("*") if path.is_file()}


WHOLE = {f"{folder}/{name}": f"{folder}-{name}" for folder in range(3) for name in range(100)}


def test_copy_up_keeps_owners_devices_pipes_and_attributes(store: Volumes, image: Path) -> None:
    data = image / "d"
    os.mknod(data / "null", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.mkfifo(data / "pipe")
    os.chown(data / "pipe", 11, 22)
    os.symlink("nowhere", data / "link")
    os.chown(data / "link", 33, 44, follow_symlinks=False)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    (data / "tool").write_text("x")
    os.chown(data / "tool", 55, 66)
    os.chmod(data / "tool", 0o4755)
    os.setxattr(data / "tool", "security.capability", capability)
    os.setxattr(data, "user.root", b"mark")
    os.chown(data, 77, 88)
    assert populate(store, image)
    found = Path(store.path_of("vol"))
    null = (found / "null").stat()
    assert (stat.S_ISCHR(null.st_mode), null.st_rdev, null.st_mode & 0o7777) == (True, os.makedev(1, 3), 0o640)
    pipe = (found / "pipe").stat()
    assert (stat.S_ISFIFO(pipe.st_mode), pipe.st_uid, pipe.st_gid) == (True, 11, 22)
    link = (found / "link").lstat()
    assert (link.st_uid, link.st_gid) == (33, 44)
    tool = (found / "tool").stat()
    assert (tool.st_uid, tool.st_gid, tool.st_mode & 0o7777) == (55, 66, 0o4755)
    assert os.getxattr(found / "tool", "security.capability") == capability
    assert (os.getxattr(found, "user.root"), found.stat().st_uid, found.stat().st_gid) == (b"mark", 77, 88)


def test_of_simultaneous_first_uses_one_copies_and_all_see_the_whole(store: Volumes, image: Path) -> None:
    def use() -> int:
        copied = populate(store, image)
        return (1 if copied else 0) + (0 if content(store) == WHOLE else 10)

    children = [process.spawn(use) for _ in range(6)]
    assert sorted(child.wait() for child in children) == [0, 0, 0, 0, 0, 1]
    for child in children:
        child.close()


@pytest.mark.parametrize("seed", range(12))
def test_killed_while_it_copies(store: Volumes, image: Path, seed: int) -> None:
    delay = random.Random(seed).uniform(0, 0.04)
    with process.spawn(lambda: int(populate(store, image))) as child:
        time.sleep(delay)
        process.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        child.wait()
    store.ensure("vol")
    assert content(store) in ({}, WHOLE)
    populate(store, image)
    assert content(store) == WHOLE
    assert sorted(os.listdir(f"{store.root.volumes}/vol")) == ENTRIES


def test_killed_while_it_is_made(tmp_path: Path) -> None:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()

    def make_many() -> None:
        for number in range(1000):
            Volumes(root).create(f"vol{number}", sync=False)

    for delay in (0.005, 0.01, 0.02, 0.03):
        with process.spawn(make_many) as child:
            time.sleep(delay)
            process.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            child.wait()
        found = Volumes(root).list()
        assert [volume.name for volume in found] == sorted(os.listdir(root.volumes))
        for volume in found:
            assert sorted(os.listdir(f"{root.volumes}/{volume.name}")) == ENTRIES


def test_a_bind_source_is_looked_at_again_at_start(minidock: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    minidock("create", "--name", "later", "--network", "none", "-v", f"{source}:/d", "busybox", "true")
    source.rmdir()
    refused = minidock("start", "later", status=None)
    assert refused.returncode != 0
    assert f"bind source path does not exist: {source}" in refused.stderr
    assert not source.exists()


def test_a_volume_over_a_file_is_refused_and_leaves_nothing(minidock: Any, context: Callable[..., Path]) -> None:
    minidock.build(context("FROM busybox\nRUN echo x > /v\nVOLUME /v\n"), "-t", "file")
    refused = minidock(*RUN, "file", "true", status=125)
    assert "over the file '/v'" in refused.stderr
    assert minidock.out("volume", "ls", "-q") == ""
    assert minidock.out("ps", "-aq") == ""


def test_anonymous_volumes_of_a_killed_create_are_named_by_its_record(
    minidock: Any, context: Callable[..., Path]
) -> None:
    minidock.build(context("FROM busybox\nRUN mkdir /v && echo x > /v/f\nVOLUME /v\n"), "-t", "volume")
    for delay in (0.05, 0.1, 0.15, 0.2, 0.25):
        process = minidock.popen("create", "--network", "none", "volume", "cat", "/v/f")
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)
    containers = minidock.out("ps", "-aq").split()
    for container in containers:
        assert minidock.out("start", "-a", container) == "x"
    assert len(minidock.out("volume", "ls", "-q").split()) == len(containers)
    if containers:
        minidock("rm", "-v", *containers)
    assert minidock.out("volume", "ls", "-q") == ""
