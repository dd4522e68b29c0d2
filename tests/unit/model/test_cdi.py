"""CDI: how devices are named, and what a specification says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from minidock.errors import CorruptObjectError, UsageError
from minidock.model.cdi import CLASS, Edits, Wanted, joined, parse_specification, parse_wanted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vendor1.com/device=foo", Wanted("vendor1.com/device", "foo")),
        ("name=vendor1.com/device=foo", Wanted("vendor1.com/device", "foo")),
        ("vendor1.com/device=*,required", Wanted("vendor1.com/device", "*", True)),
        ("vendor1.com/device=0,required=true", Wanted("vendor1.com/device", "0", True)),
        ("required=false,name=gpu", Wanted("", "gpu")),
        ("gpu", Wanted("", "gpu")),
    ],
)
def test_names(text: str, expected: Wanted) -> None:
    assert parse_wanted(text) == expected
    assert parse_wanted(expected.text())[:2] == expected[:2]


@pytest.mark.parametrize(
    "text", ["", "a/b=", "=x", "/dev/null", "a/b=c,d", "gpu,required=perhaps", "a b", "a/b/c=d", "a/b=../c"]
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError, match="invalid device") as caught:
        parse_wanted(text)
    assert repr(text) in caught.value.message


def specification(**changes: Any) -> bytes:
    edits = {
        "env": ["A=1"],
        "deviceNodes": [{"path": "/dev/x"}],
        "mounts": [{"hostPath": "/etc", "containerPath": "/e", "options": ["ro"]}],
        "additionalGids": [7],
        "hooks": [{"hookName": "createContainer", "path": "/bin/true"}],
    }
    device = {"name": "foo", "containerEdits": edits, "annotations": {CLASS: "fast"}}
    value = {"cdiVersion": "0.6.0", "kind": "v.com/d", "devices": [device], "containerEdits": {"env": ["B=2"]}}
    return json.dumps({**value, **changes}).encode()


def test_a_specification() -> None:
    found = parse_specification(specification(), where="/etc/cdi/x.json")
    assert (found.kind, found.classes, found.common) == ("v.com/d", {"foo": "fast"}, Edits(("B=2",)))
    edits = found.devices["foo"]
    assert (edits.env, edits.groups, edits.not_done) == (("A=1",), (7,), ("hooks",))
    assert edits.nodes == ({"path": "/dev/x"},)
    assert joined([edits, found.common, edits]).env == ("A=1", "B=2")


def edited(**edits: Any) -> bytes:
    return specification(devices=[{"name": "foo", "containerEdits": edits}])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        specification(kind="nothing"),
        specification(kind=7),
        specification(devices={}),
        specification(devices=[{"name": "a/b"}]),
        specification(devices=[{"name": "a"}, {"name": "a"}]),
        specification(devices=[7]),
        edited(env=["A"]),
        edited(env="A=1"),
        edited(deviceNodes=[{"path": "dev/x"}]),
        edited(deviceNodes=[{"path": "/etc/x"}]),
        edited(deviceNodes=[{"path": "/dev/../etc/x"}]),
        edited(deviceNodes=[{"path": "/dev/pts/0"}]),
        edited(mounts=[{"hostPath": "/x"}]),
        edited(mounts=[{"hostPath": "x", "containerPath": "/x"}]),
        edited(additionalGids=["root"]),
        edited(additionalGids=[-1]),
    ],
)
def test_what_is_no_specification_names_the_file(data: bytes) -> None:
    with pytest.raises(CorruptObjectError, match=r"/etc/cdi/x\.json"):
        parse_specification(data, where="/etc/cdi/x.json")
