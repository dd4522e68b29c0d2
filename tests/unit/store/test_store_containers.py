from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import ConflictError, CorruptObjectError, InvalidReferenceError, NoSuchContainerError, StoreError
from minidock.model.container import Record, Settings, State
from minidock.model.mounts import Mount
from minidock.store import files
from minidock.store.containers import ContainerStore, new_id
from minidock.store.layout import DataRoot

Make = Callable[..., Record]


def nothing(path: str) -> None:
    return


@pytest.fixture
def store(root: DataRoot) -> ContainerStore:
    return ContainerStore(root)


def test_a_container_comes_back_as_it_was_written(store: ContainerStore, make_record: Make) -> None:
    mount = Mount("volume", "v", "/v", labels=(("k", "v"),), options=("ro",))
    record = make_record("web", mounts=(mount,), settings=Settings(image="i", name="web", mounts=(mount,)))
    seen = []

    def fill(path: str) -> None:
        seen.append(sorted(os.listdir(path)))
        Path(path, "config.json").write_text("{}")
        os.mkdir(f"{path}/upper")

    store.create(record, State(), fill)
    assert seen == [["container.json", "lock", "state.json"]]
    assert store.load(record.id) == record
    assert store.state(record.id) == State()
    assert sorted(os.listdir(store.root.container_dir(record.id))) == [
        "config.json",
        "container.json",
        "lock",
        "state.json",
        "upper",
    ]
    assert os.readlink(f"{store.root.names}/web") == f"../{record.id}"
    assert os.stat(store.root.container_dir(record.id)).st_mode & 0o777 == 0o710
    assert store.lock_path(record.id).endswith(f"{record.id}/lock")
    assert os.listdir(store.root.tmp) == []


def test_only_a_container_that_stays_is_synced(
    store: ContainerStore, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, _n=name, _r=real: (calls.append(_n), _r(fd))[1])
    store.create(make_record("temporary", settings=Settings(image="i", auto_remove=True)), State(), nothing)
    assert calls == []
    store.create(make_record("kept"), State(), nothing)
    assert calls.count("fdatasync") == 2
    assert calls.count("fsync") == 3


def test_a_name_is_taken_once(store: ContainerStore, make_record: Make) -> None:
    first = make_record("web")
    store.create(first, State(), nothing)
    with pytest.raises(ConflictError) as caught:
        store.create(make_record("web"), State(), nothing)
    assert caught.value.message == (f'conflict: the container name "/web" is already in use by container "{first.id}"')
    assert list(store.ids()) == [first.id]
    assert os.listdir(store.root.tmp) == []


def test_of_two_racers_for_one_name_exactly_one_wins(store: ContainerStore, make_record: Make) -> None:
    gate, results = threading.Barrier(6), []

    def race(record: Record) -> None:
        gate.wait()
        try:
            store.create(record, State(), nothing)
            results.append(record.id)
        except ConflictError:
            results.append("")

    threads = [threading.Thread(target=race, args=(make_record("web"),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [result for result in results if result]
    assert len(results) == 6
    assert len(winners) == 1
    assert list(store.ids()) == winners
    assert store.resolve("web") == winners[0]


def test_a_name_that_is_none(store: ContainerStore, make_record: Make) -> None:
    for name in ("../x", "x", "-ab", "a b"):
        with pytest.raises(InvalidReferenceError):
            store.create(make_record(name), State(), nothing)


def test_a_failing_fill_leaves_nothing(store: ContainerStore, make_record: Make) -> None:
    def fill(path: str) -> None:
        os.mkdir(f"{path}/upper")
        raise ConflictError("no")

    with pytest.raises(ConflictError, match="no"):
        store.create(make_record("web"), State(), fill)

    def fail(path: str) -> None:
        raise OSError(28, "No space left on device", path)

    with pytest.raises(StoreError, match=r"cannot create the container web: .*No space left"):
        store.create(make_record("web"), State(), fail)
    assert os.listdir(store.root.tmp) == []
    assert os.listdir(store.root.names) == []
    assert store.ids() == []


def test_a_failing_last_rename_frees_the_name(
    store: ContainerStore, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, real = make_record("web"), os.rename

    def rename(source: str, target: str) -> None:
        if target == store.root.container_dir(record.id):
            raise OSError(5, "Input/output error", target)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(StoreError, match="Input/output error"):
        store.create(record, State(), nothing)
    assert os.listdir(store.root.names) == []


def test_a_name_whose_container_is_not_there_is_free(store: ContainerStore, make_record: Make) -> None:
    os.symlink("../" + "a" * 64, f"{store.root.names}/web")
    with pytest.raises(NoSuchContainerError):
        store.resolve("web")
    record = make_record("web")
    store.create(record, State(), nothing)
    assert store.resolve("web") == record.id


def test_resolve_takes_id_then_name_then_prefix(store: ContainerStore, make_record: Make) -> None:
    one, two = make_record("one", id="ab" * 32), make_record("two", id="ac" * 32)
    for record in (one, two):
        store.create(record, State(), nothing)
    named = make_record("abab")
    store.create(named, State(), nothing)
    assert store.resolve(one.id) == one.id
    assert store.resolve("/two") == two.id
    assert store.resolve("abab") == named.id
    assert store.resolve("aba") == one.id
    with pytest.raises(NoSuchContainerError, match="ambiguous"):
        store.resolve("a")
    for text in ("", "/", "../x", "zz", "f" * 64, "by-name"):
        with pytest.raises(NoSuchContainerError, match="no such container"):
            store.resolve(text)


def test_state_is_replaced(store: ContainerStore, make_record: Make) -> None:
    record = make_record("web")
    store.create(record, State(), nothing)
    for sync in (False, True):
        state = State(status="running", pid=7, started=1 + sync)
        store.write_state(record.id, state, sync=sync)
        assert store.state(record.id) == state
    assert os.listdir(store.root.tmp) == []


def test_writing_the_state_of_one_that_has_gone(
    store: ContainerStore, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoSuchContainerError):
        store.write_state("a" * 64, State(), sync=False)

    def fail(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(StoreError, match="No space left"):
        store.write_state("a" * 64, State(), sync=False)


def test_list_is_the_latest_first_and_never_fails(store: ContainerStore, make_record: Make) -> None:
    records = [make_record(f"c{i}", created=i) for i in range(5)]
    for record in records:
        store.create(record, State(), nothing)
    folders = [store.root.container_dir(record.id) for record in records]
    Path(folders[0], "container.json").write_text("{")
    Path(folders[1], "state.json").write_text("[]")
    Path(folders[2], "container.json").write_text('{"id": "x"}')
    os.unlink(f"{folders[3]}/container.json")
    listed = store.list()
    assert [record.name for record, _ in listed] == ["c4", "c1"]
    assert listed[1][1].status == "exited"
    assert listed[1][1].exit_code == 255
    assert "not a JSON object" in listed[1][1].error
    assert store.resolve(records[0].id[:20]) == records[0].id
    for record in records:
        store.remove(record.id)
    assert store.ids() == []
    assert os.listdir(store.root.names) == []


def test_a_record_of_another_container_is_damage(store: ContainerStore, make_record: Make) -> None:
    record = make_record("web")
    store.create(record, State(), nothing)
    path = Path(store.root.container_dir(record.id), "container.json")
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "id": "b" * 64}))
    with pytest.raises(CorruptObjectError, match="another's"):
        store.load(record.id)


def test_fields_of_a_newer_minidock_are_passed_over(store: ContainerStore, make_record: Make) -> None:
    record = make_record("web")
    store.create(record, State(), nothing)
    for name in ("container.json", "state.json"):
        path = f"{store.root.container_dir(record.id)}/{name}"
        files.write_json(path, {**files.read_json(path), "novelty": 1}, sync=False)
    assert store.load(record.id) == record
    assert store.state(record.id) == State()


def test_a_state_of_wrong_types_is_damage(store: ContainerStore, make_record: Make) -> None:
    record = make_record("web")
    store.create(record, State(), nothing)
    path = f"{store.root.container_dir(record.id)}/state.json"
    for name, value in (("pid", "7"), ("status", None), ("oom_killed", 1)):
        files.write_json(path, {**State()._asdict(), name: value}, sync=False)
        with pytest.raises(CorruptObjectError, match=f"is damaged: {name}"):
            store.state(record.id)


def test_names_that_cannot_be_read_are_an_error(store: ContainerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> str:
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(os, "readlink", fail)
    with pytest.raises(OSError, match="Input/output error"):
        store.resolve("web")


def test_an_id_that_is_none(store: ContainerStore) -> None:
    for text in ("../x", "", "A" * 64):
        with pytest.raises(NoSuchContainerError):
            store.load(text)


def test_an_unreadable_record_is_damage(store: ContainerStore, make_record: Make) -> None:
    record = make_record("web")
    store.create(record, State(), nothing)
    path = f"{store.root.container_dir(record.id)}/state.json"
    os.unlink(path)
    with pytest.raises(CorruptObjectError, match=r"has no state\.json"):
        store.state(record.id)
    os.unlink(f"{store.root.container_dir(record.id)}/container.json")
    os.mkdir(f"{store.root.container_dir(record.id)}/container.json")
    with pytest.raises(CorruptObjectError, match="not a regular file"):
        store.load(record.id)


def test_a_read_error_is_damage(store: ContainerStore, make_record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record("web")
    store.create(record, State(), nothing)

    def fail(*args: Any, **kwargs: Any) -> dict[str, Any]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "read_json", fail)
    with pytest.raises(CorruptObjectError, match="Input/output error"):
        store.load(record.id)


def test_remove_is_one_rename_and_idempotent(store: ContainerStore, make_record: Make) -> None:
    record, other = make_record("web"), make_record("other")
    for each in (record, other):
        store.create(each, State(), nothing)
    store.remove(record.id)
    store.remove(record.id)
    assert list(store.ids()) == [other.id]
    assert os.listdir(store.root.names) == ["other"]
    assert os.listdir(store.root.tmp) == []
    with pytest.raises(NoSuchContainerError):
        store.load(record.id)
    with pytest.raises(NoSuchContainerError):
        store.remove("../volumes")


def test_remove_leaves_a_name_that_is_anothers(store: ContainerStore, make_record: Make) -> None:
    record, other = make_record("web"), make_record("other")
    for each in (record, other):
        store.create(each, State(), nothing)
    os.unlink(f"{store.root.names}/web")
    os.symlink(f"../{other.id}", f"{store.root.names}/web")
    store.remove(record.id)
    assert store.resolve("web") == other.id


def test_a_stranger_among_the_names_is_not_a_container(store: ContainerStore) -> None:
    Path(store.root.names, "plain").write_text("")
    with pytest.raises(NoSuchContainerError):
        store.resolve("plain")


def test_names_of_nothing_are_dropped_and_no_others(store: ContainerStore, make_record: Make) -> None:
    record = make_record("web")
    store.create(record, State(), nothing)
    store.drop_lost_names()
    os.symlink("../" + "a" * 64, f"{store.root.names}/lost")
    os.symlink("/etc", f"{store.root.names}/strange-folder")
    Path(store.root.names, "plain").write_text("")
    store.drop_lost_names()
    assert sorted(os.listdir(store.root.names)) == ["plain", "strange-folder", "web"]
    assert store.resolve("web") == record.id


def test_remove_that_fails_says_where(
    store: ContainerStore, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_record("web")
    store.create(record, State(), nothing)

    def fail(path: str) -> None:
        raise OSError(16, "Device or resource busy", f"{path}/upper")

    monkeypatch.setattr(files, "remove_tree", fail)
    with pytest.raises(StoreError, match="upper: Device or resource busy"):
        store.remove(record.id)
    assert store.ids() == []


def test_new_ids_are_full_and_never_look_like_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([b"\x12" * 32, b"\xab" * 32])
    monkeypatch.setattr(os, "urandom", lambda _: next(answers))
    assert new_id() == "ab" * 32
