"""Cache mounts: their folders, locks and removal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import StoreError
from minidock.store.cache_mounts import CacheMounts, cache_name
from minidock.store.layout import DataRoot

HOLDER = """
import sys
from minidock.store.cache_mounts import CacheMounts
from minidock.store.layout import DataRoot
root = DataRoot(sys.argv[1], run=sys.argv[2])
with CacheMounts(root).hold(sys.argv[3], sys.argv[4], staging=root.tmp, fill=lambda path: None) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    return root


@contextmanager
def held(root: DataRoot, cache_id: str, sharing: str) -> Iterator[Path]:
    with CacheMounts(root).hold(cache_id, sharing, staging=root.tmp, fill=lambda _: None) as path:
        yield Path(path)


class Other:
    """Another process that holds a cache, or waits for it. Its end is the end of ``stop``."""

    def __init__(self, root: DataRoot, cache_id: str, sharing: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, root.path, root.run, cache_id, sharing],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def path(self) -> Path:
        """Waits until it holds the cache."""
        assert self.process.stdout is not None
        return Path(self.process.stdout.readline().rstrip("\n"))

    def waits(self) -> bool:
        """Whether it sleeps in flock(2), waiting."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if "flock" in Path(f"/proc/{self.process.pid}/wchan").read_text() or self._in_flock():
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        return False

    def _in_flock(self) -> bool:
        """/proc/locks marks who waits with an arrow (proc(5))."""
        waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
        return any(str(self.process.pid) in words for words in waiting)

    def stop(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        self.process.communicate(timeout=20)


@pytest.fixture
def other(root: DataRoot) -> Iterator[Callable[[str, str], Other]]:
    made: list[Other] = []

    def start(cache_id: str, sharing: str) -> Other:
        made.append(Other(root, cache_id, sharing))
        return made[-1]

    yield start
    for one in made:
        one.stop(kill=True)


def test_a_folder_is_named_by_the_digest_and_its_record_names_it(root: DataRoot) -> None:
    with held(root, "../../../etc", "shared") as path:
        assert path == Path(root.cache, "mounts", cache_name("../../../etc"), "data")
        assert path.is_dir()
    record = json.loads((path.parent / "mount.json").read_text())
    assert record["id"] == "../../../etc"
    assert sorted(os.listdir(path.parent)) == ["data", "mount.json"]
    assert os.listdir(root.tmp) == []


def test_content_stays(root: DataRoot) -> None:
    with held(root, "a", "shared") as path:
        (path / "x").write_text("X")
    with held(root, "a", "locked") as path:
        assert (path / "x").read_text() == "X"


def test_a_new_directory_is_filled_once_and_a_failure_leaves_nothing(root: DataRoot) -> None:
    mounts = CacheMounts(root)

    def fail(path: str) -> None:
        Path(path, "x").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError), mounts.hold("a", "shared", staging=root.tmp, fill=fail):
        pass
    assert os.listdir(root.tmp) == []
    calls: list[str] = []
    for _ in range(2):
        with mounts.hold("a", "shared", staging=root.tmp, fill=calls.append) as path:
            assert os.listdir(path) == []
    assert len(calls) == 1


def test_shared_users_have_one_directory(root: DataRoot, other: Any) -> None:
    with held(root, "a", "shared") as path:
        assert other("a", "shared").path() == path


@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [
        *(("locked", "locked", True), ("shared", "locked", True), ("locked", "shared", True)),
        *(("shared", "shared", False), ("locked", "private", False)),
    ],
)
def test_whoever_will_wait_is_told_before(root: DataRoot, other: Any, first: str, second: str, waits: bool) -> None:
    holder = other("a", first)
    holder.path()
    told: list[str] = []

    def tell() -> None:
        told.append("")
        holder.stop()

    with CacheMounts(root).hold("a", second, staging=root.tmp, fill=lambda _: None, before_waiting=tell):
        assert bool(told) == waits


@pytest.mark.parametrize(("first", "second"), [("locked", "locked"), ("shared", "locked"), ("locked", "shared")])
def test_locked_waits(root: DataRoot, other: Any, first: str, second: str) -> None:
    with held(root, "a", first) as path:
        late = other("a", second)
        assert late.waits()
    assert late.path() == path


def test_private_takes_another(root: DataRoot, other: Any) -> None:
    with held(root, "a", "private") as path, held(root, "b", "private"):
        second = other("a", "private").path()
        third = other("a", "private").path()
    assert (path.name, second.name, third.name) == ("data", "data-2", "data-3")
    with held(root, "a", "private") as again:
        assert again == path, "the first that is free"


def test_a_killed_holder_frees_it(root: DataRoot, other: Any) -> None:
    one = other("a", "locked")
    path = one.path()
    one.stop(kill=True)
    with held(root, "a", "private") as mine:
        assert mine == path


def test_what_is_in_use_is_not_removed(root: DataRoot) -> None:
    mounts = CacheMounts(root)
    with held(root, "a", "shared"):
        assert [entry.busy for entry in mounts.list()] == [True]
        assert not mounts.remove(cache_name("a"))
    assert [entry.busy for entry in mounts.list()] == [False]
    assert mounts.remove(cache_name("a"))
    assert mounts.remove(cache_name("a"))
    assert mounts.list() == []
    assert os.listdir(root.tmp) == []


def test_list(root: DataRoot) -> None:
    for cache_id in ("a", "b"):
        with held(root, cache_id, "shared"):
            pass
    found = {entry.id: entry for entry in CacheMounts(root).list()}
    assert found.keys() == {"a", "b"}
    assert all(entry.problem == "" and entry.name == cache_name(entry.id) for entry in found.values())
    before = found["a"].used
    os.utime(f"{root.cache}/mounts/{cache_name('a')}/mount.json", ns=(1, 1))
    with held(root, "a", "shared"):
        pass
    assert {entry.id: entry.used for entry in CacheMounts(root).list()}["a"] >= before


def test_damage_is_told(root: DataRoot) -> None:
    for cache_id in "abcd":
        with held(root, cache_id, "shared"):
            pass
    folder = Path(root.cache, "mounts")
    (folder / cache_name("a") / "mount.json").unlink()
    (folder / cache_name("b") / "mount.json").write_text("{")
    (folder / cache_name("c") / "mount.json").write_text('{"id": "z", "created": 1}')
    (folder / "file").write_text("")
    (folder / "link").symlink_to("/etc")
    problems = {entry.name: entry.problem for entry in CacheMounts(root).list()}
    assert problems.pop(cache_name("d")) == ""
    assert all(problems.values())
    for name in problems:
        assert CacheMounts(root).remove(name)
    assert [entry.id for entry in CacheMounts(root).list()] == ["d"]
    assert os.path.isdir("/etc")


@pytest.mark.parametrize("where", ["folder", "data"])
def test_a_link_is_never_followed(root: DataRoot, tmp_path: Path, where: str) -> None:
    away = tmp_path / "away"
    away.mkdir()
    folder = Path(root.cache, "mounts", cache_name("a"))
    folder.parent.mkdir()
    if where == "folder":
        folder.symlink_to(away)
    else:
        folder.mkdir()
        (folder / "data").symlink_to(away)
    with pytest.raises(StoreError, match="cannot use the cache mount 'a'"), ExitStack() as opened:
        opened.enter_context(held(root, "a", "shared"))
    assert os.listdir(away) == []


def test_removed_and_used_at_once(root: DataRoot) -> None:
    """Whoever holds a directory has one that is there, whatever is removed at the same time."""
    remover = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom minidock.store.cache_mounts import *\nfrom minidock.store.layout import DataRoot\n"
            "mounts = CacheMounts(DataRoot(sys.argv[1], run=sys.argv[2]))\n"
            "while True: mounts.remove(cache_name('a'))\n",
            root.path,
            root.run,
        ]
    )
    try:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            with held(root, "a", "private") as path:
                (path / "x").write_text("X")
                assert (path / "x").read_text() == "X"
    finally:
        remover.kill()
        remover.wait()
