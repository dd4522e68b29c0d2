"""Records and states: through JSON and back, with fields missing and fields of a newer version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from minidock.errors import CorruptObjectError
from minidock.model.container import (
    EXITED,
    Record,
    Settings,
    State,
    record_from_json,
    record_to_json,
    state_from_json,
)
from minidock.model.mounts import Mount

MOUNTS = (
    Mount("volume", "data", "/data", read_only=True, labels=(("a", "b"),), origin="-v"),
    Mount("tmpfs", "", "/t", options=("size=1", "mode=0755")),
)
SETTINGS = Settings(
    "busybox",
    command=("echo", "hi"),
    env=("A=b",),
    entrypoint=("/x",),
    labels=(("k", "v"),),
    mounts=MOUNTS,
    cap_add=("CAP_SYS_ADMIN",),
    security_opt=("seccomp=unconfined",),
)


def record(settings: Settings = SETTINGS) -> Record:
    return Record(
        id="a" * 64,
        name="x",
        created=1,
        image="busybox",
        image_id="sha256:" + "b" * 64,
        diff_ids=("sha256:" + "c" * 64,),
        driver="overlay2",
        args=("/x", "echo", "hi"),
        env=("PATH=/bin", "A=b"),
        workdir="/",
        user="",
        hostname="x",
        labels=(("k", "v"),),
        mounts=MOUNTS,
        anonymous=("f" * 64,),
        exposed_ports=("80/tcp",),
        stop_signal="TERM",
        settings=settings,
    )


def through_json(value: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json.dumps(value))
    return loaded


@pytest.mark.parametrize(
    "settings", [SETTINGS, Settings("i"), SETTINGS._replace(entrypoint=()), Settings("i", tty=True)]
)
def test_a_record_goes_round(settings: Settings) -> None:
    found = record(settings)
    assert record_from_json(through_json(record_to_json(found))) == found


def test_labels_are_readable_objects() -> None:
    value = record_to_json(record())
    assert value["labels"] == {"k": "v"}
    assert value["mounts"][0]["labels"] == {"a": "b"}
    assert value["settings"]["labels"] == {"k": "v"}


def test_fields_of_a_newer_version_are_passed_over() -> None:
    value = through_json(record_to_json(record()))
    value["future"] = 1
    value["settings"]["future"] = {"a": 1}
    value["mounts"][0]["future"] = [1]
    assert record_from_json(value) == record()


def test_settings_that_an_older_version_did_not_write_take_their_default() -> None:
    value = through_json(record_to_json(record()))
    del value["settings"]["shm_size"]
    for name in ("ulimits", "sysctls", "devices", "device_cgroup_rules", "group_add"):
        del value["settings"][name]
    del value["mounts"][0]["labels"]
    found = record_from_json(value)
    assert found.settings.shm_size == 64 * 1024 * 1024
    assert found.mounts[0].labels == ()
    assert (found.settings.ulimits, found.settings.sysctls, found.settings.devices) == ((), (), ())
    assert (found.settings.device_cgroup_rules, found.settings.group_add) == ((), ())


@pytest.mark.parametrize(
    "change",
    [
        {"id": ...},
        {"id": 3},
        {"name": ["a"]},
        {"image_id": None},
        {"diff_ids": [3]},
        {"diff_ids": 3},
        {"settings": ...},
        {"labels": ["a"]},
        {"labels": ...},
        {"mounts": 1},
        {"mounts": [1]},
        {"mounts": [{"labels": {}}]},
        {"settings": {"labels": {}, "mounts": []}},
        {"settings": {"image": "x", "mounts": []}},
        {"settings": None},
    ],
)
def test_a_damaged_record_is_refused(change: dict[str, Any]) -> None:
    value = through_json(record_to_json(record())) | change
    value = {key: field for key, field in value.items() if field is not ...}
    with pytest.raises(CorruptObjectError, match="record is damaged"):
        record_from_json(value)


def test_a_state_goes_round() -> None:
    state = State(status=EXITED, exit_code=137, error="e", oom_killed=True, started=1, finished=2, boot_id="b")
    assert state_from_json(through_json(state._asdict())) == state
    assert state_from_json({}) == State()
    assert state_from_json({"status": EXITED, "future": 1}) == State(status=EXITED)
