from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from minidock.store import locks


def test_an_exclusive_lock_is_seen_and_freed(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    assert not locks.is_held(path)
    assert not os.path.exists(path)
    with locks.exclusive(path) as fd:
        assert not os.get_inheritable(fd)
        assert locks.is_held(path)
        assert locks.try_exclusive(path) is None
    assert not locks.is_held(path)
    assert os.path.exists(path)


def test_shared_locks_live_together_and_keep_a_taker_out(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locks.shared(path), locks.shared(path):
        assert not locks.is_held(path)
        assert locks.try_exclusive(path) is None
    fd = locks.try_exclusive(path)
    assert fd is not None
    os.close(fd)


def test_a_probe_does_not_turn_a_taker_away(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    probe = locks.open_lock(path)
    fcntl.flock(probe, fcntl.LOCK_SH)

    def let_go() -> None:
        time.sleep(0.002)
        os.close(probe)

    thread = threading.Thread(target=let_go)
    thread.start()
    fd = locks.try_exclusive(path)
    thread.join()
    assert fd is not None
    os.close(fd)


def test_a_dead_holder_frees_its_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    pid = os.fork()
    if pid == 0:
        fcntl.flock(locks.open_lock(path), fcntl.LOCK_EX)
        os._exit(0)
    os.waitpid(pid, 0)
    assert not locks.is_held(path)


def test_a_lock_file_is_never_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        locks.open_lock(str(tmp_path / "link"))
    assert not (tmp_path / "elsewhere").exists()


def test_an_error_of_flock_is_passed_on_and_leaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(fcntl, "flock", fail)
    for take in (locks.try_exclusive, locks.is_held):
        (tmp_path / "lock").touch()
        with pytest.raises(OSError, match="No locks available"):
            take(str(tmp_path / "lock"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_passing_lock_goes_with_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    fd = locks.try_passing(path)
    assert fd is not None
    assert locks.try_passing(path) is None
    locks.end_passing(path, fd)
    assert os.listdir(tmp_path) == []
    again = locks.wait_passing(path)
    assert locks.is_at(path, again)
    locks.end_passing(path, again)


def test_a_passing_lock_that_was_removed_takes_no_other_with_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lost = locks.try_passing(path)
    assert lost is not None
    os.unlink(path)
    fd = locks.try_passing(path)
    assert fd is not None
    locks.end_passing(path, lost)
    assert locks.is_at(path, fd)
    locks.end_passing(path, fd)


def test_who_waited_for_a_passing_lock_has_the_one_that_lies_there(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    fd = locks.try_passing(path)
    assert fd is not None
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(locks.wait_passing, path) for _ in range(4)]
        locks.end_passing(path, fd)
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            assert len(done) == 1, "only one has it"
            (got,) = done
            waiting.remove(got)
            assert locks.is_at(path, got.result())
            locks.end_passing(path, got.result())
    assert os.listdir(tmp_path) == []
