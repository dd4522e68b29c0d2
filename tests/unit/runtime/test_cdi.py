"""Devices by their CDI names: which of the host's are given, and what is said of those that are not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import HostError
from minidock.model.cdi import CLASS, parse_wanted
from minidock.runtime.cdi import Given, find_devices


def write(path: Path, kind: str, devices: dict[str, Any], **more: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    listed = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
    path.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": kind, "devices": listed, **more}))


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    write(
        tmp_path / "etc/a.json",
        "v.com/d",
        {"one": {"env": ["A=1"], "deviceNodes": [{"path": "/dev/mine", "hostPath": "/dev/null", "permissions": "rw"}]}},
        containerEdits={"env": ["ALL=1"]},
    )
    write(tmp_path / "etc/b.json", "v.com/d", {"two": {"env": ["A=2"]}}, annotations={CLASS: "fast"})
    write(tmp_path / "run/c.json", "v.com/d", {"two": {"env": ["A=3"], "hooks": [{}], "additionalGids": [44]}})
    (tmp_path / "run/d.yaml").write_text("kind: w.com/e\n")
    (tmp_path / "run/readme").write_text("no specification")
    return [str(tmp_path / "etc"), str(tmp_path / "run"), str(tmp_path / "missing")]


def given(folders: list[str], *texts: str) -> Given:
    return find_devices([parse_wanted(text) for text in texts], folders=folders)


def test_a_device_with_its_node_as_the_host_has_it(folders: list[str]) -> None:
    found = given(folders, "v.com/d=one")
    assert found.env == ("A=1", "ALL=1")
    (node,) = found.nodes
    status = os.stat("/dev/null")
    assert (node["path"], node["type"]) == ("/dev/mine", "c")
    assert (node["major"], node["minor"]) == (os.major(status.st_rdev), os.minor(status.st_rdev))
    assert found.rules == ({"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},)


def test_all_of_a_kind_the_later_folder_counting(folders: list[str]) -> None:
    found = given(folders, "v.com/d=*")
    assert found.env == ("A=1", "A=3", "ALL=1")
    assert found.groups == ("44",)
    assert found.told == ("hooks of the device v.com/d=two are left out",)


def test_a_class(folders: list[str], tmp_path: Path) -> None:
    (tmp_path / "run/c.json").unlink()
    assert given(folders, "fast").env == ("A=2",)


def test_one_that_is_not_there(folders: list[str]) -> None:
    assert given(folders, "w.com/e=x").told == ("there is no device w.com/e=x: the command runs without it",)
    with pytest.raises(HostError, match=r"there is no device w.com/e=x on this host") as caught:
        given(folders, "w.com/e=x,required")
    assert "d.yaml is in YAML, which is not read" in caught.value.hint


def test_two_files_that_claim_one(folders: list[str], tmp_path: Path) -> None:
    write(tmp_path / "etc/z.json", "v.com/d", {"one": {}})
    with pytest.raises(HostError, match=r"the device v.com/d=one is in .*a.json and in .*z.json"):
        given(folders, "v.com/d=one")


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ({"deviceNodes": [{"path": "/dev/never-there"}]}, "cannot use the device /dev/never-there: no such file"),
        ({"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc/passwd"}]}, "/etc/passwd: it is not a device"),
        ({"mounts": [{"hostPath": "/never/there", "containerPath": "/x"}]}, "cannot mount /never/there"),
    ],
)
def test_what_the_host_does_not_have(folders: list[str], tmp_path: Path, edits: dict[str, Any], said: str) -> None:
    write(tmp_path / "etc/e.json", "v.com/e", {"bad": edits})
    with pytest.raises(HostError, match=said):
        given(folders, "v.com/e=bad")
    assert given(folders, "v.com/d=one").env, "nobody else is troubled"


def test_a_damaged_file_is_told_of_and_passed_over(folders: list[str], tmp_path: Path) -> None:
    (tmp_path / "etc/0.json").write_text("{")
    found = given(folders, "v.com/d=one")
    assert found.env == ("A=1", "ALL=1")
    assert len(found.told) == 1
    assert "0.json is not valid JSON" in found.told[0]


def test_mounts_are_binds_unless_they_say_otherwise(folders: list[str], tmp_path: Path) -> None:
    mounts = [
        {"hostPath": "/etc", "containerPath": "/e", "options": ["ro", "nosuid"]},
        {"hostPath": "/tmpfs", "containerPath": "/t", "type": "tmpfs", "options": ["size=1m"]},
    ]
    write(tmp_path / "etc/e.json", "v.com/e", {"m": {"mounts": mounts}})
    assert given(folders, "v.com/e=m").mounts == (
        {"destination": "/e", "type": "bind", "source": "/etc", "options": ["rbind", "ro", "nosuid"]},
        {"destination": "/t", "type": "tmpfs", "source": "/tmpfs", "options": ["size=1m"]},
    )
