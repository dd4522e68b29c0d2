from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minidock.errors import InvalidReferenceError
from minidock.store import files, locks, staging
from minidock.store.layout import DataRoot
from minidock.store.staging import Staging

DIGEST = "sha256:" + "a" * 64


def in_child(act: Callable[[], object]) -> int:
    """Run ``act`` in a child that stays until it is killed; returns its pid once ``act`` is done."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        act()
        os.write(writer, b"x")
        signal.pause()
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_staging_directory_is_private_and_goes_with_its_context(root: DataRoot) -> None:
    with Staging(root, "build") as stage:
        assert os.path.dirname(stage.path) == root.tmp
        assert os.path.basename(stage.path).startswith("build-")
        assert os.stat(stage.path).st_mode & 0o777 == 0o700
        Path(stage.path, "x").write_text("")
        assert staging.sweep(root) == 0
        assert os.path.exists(f"{stage.path}/x")
    assert os.listdir(root.tmp) == []


def test_what_was_renamed_away_stays(root: DataRoot) -> None:
    with Staging(root) as stage:
        os.rename(stage.path, f"{root.cache}/kept")
    assert os.listdir(root.cache) == ["kept"]


def test_a_killed_makers_leftovers_are_swept_and_a_living_ones_are_not(root: DataRoot) -> None:
    stage = Staging(root)
    pid = in_child(stage.__enter__)
    assert staging.sweep(root) == 0
    kill(pid)
    assert staging.sweep(root) == 1
    assert os.listdir(root.tmp) == []


def test_sweep_takes_whatever_nobody_holds(root: DataRoot) -> None:
    os.mkdir(f"{root.tmp}/removed-x")
    Path(root.tmp, "removed-x", "file").write_text("")
    Path(root.tmp, "file").write_text("")
    os.symlink("/etc", f"{root.tmp}/link")
    os.mkfifo(f"{root.tmp}/fifo")
    here = os.getcwd()
    os.chdir(root.tmp)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
    finally:
        os.chdir(here)
    fd, path = files.open_scratch(root.tmp)
    assert staging.sweep(root) == 5
    assert os.listdir(root.tmp) == [os.path.basename(path)]
    os.close(fd)
    assert staging.sweep(root) == 1


def test_what_cannot_be_removed_does_not_stop_the_sweep(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        os.mkdir(f"{root.tmp}/{name}")
    real = files.remove_tree

    def fail(path: str) -> None:
        if path.endswith("/a"):
            raise OSError(5, "Input/output error", path)
        real(path)

    monkeypatch.setattr(files, "remove_tree", fail)
    assert staging.sweep(root) == 1
    assert os.listdir(root.tmp) == ["a"]


def test_a_directory_swept_before_its_maker_locked_it_is_made_again(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = os.mkdir, []

    def mkdir(path: str, mode: int = 0o777) -> None:
        real(path, mode)
        if len(swept) < 2:
            swept.append(path)
            os.rmdir(path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with Staging(root) as stage:
        assert stage.path not in swept
        assert os.path.isdir(stage.path)
    assert len(swept) == 2


def test_a_directory_swept_while_its_maker_waits_for_the_lock_is_made_again(root: DataRoot) -> None:
    path = f"{root.tmp}/stage-x"
    os.mkdir(path)
    sweeper = os.open(path, os.O_RDONLY)
    assert locks.try_lock(sweeper)
    got: list[int | None] = []
    thread = threading.Thread(target=lambda: got.append(staging._lock_directory(path)))
    thread.start()
    time.sleep(0.05)
    os.rmdir(path)
    os.close(sweeper)
    thread.join()
    assert got == [None]


def test_digests_that_are_leaned_on_count_while_the_holder_lives(root: DataRoot) -> None:
    stage = Staging(root)

    def act() -> None:
        stage.__enter__()
        stage.lean_on([DIGEST])
        stage.lean_on(["sha256:" + "b" * 64])
        stage.lean_on([])

    pid = in_child(act)
    assert staging.staged_digests(root) == {DIGEST, "sha256:" + "b" * 64}
    kill(pid)
    assert staging.staged_digests(root) == set()


def test_a_torn_line_is_passed_over(root: DataRoot) -> None:
    with Staging(root) as stage:
        stage.lean_on([DIGEST])
        with open(f"{stage.path}/.leans", "a") as file:
            file.write("sha256:aaaa")
        Path(root.tmp, "plain").write_text("")
        assert staging.staged_digests(root) == {DIGEST}


def test_leaning_on_what_is_no_digest_is_refused(root: DataRoot) -> None:
    with Staging(root) as stage, pytest.raises(InvalidReferenceError):
        stage.lean_on(["sha256:../../x"])


def test_leaning_waits_for_a_removal_under_way(root: DataRoot) -> None:
    with Staging(root) as stage:
        order = []
        thread = threading.Thread(target=lambda: (stage.lean_on([DIGEST]), order.append("leaned")))
        with locks.exclusive(root.collection_lock):
            thread.start()
            time.sleep(0.05)
            order.append("removed")
        thread.join()
    assert order == ["removed", "leaned"]
