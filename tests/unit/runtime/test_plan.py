"""The order of the steps, as data: nothing is done."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import UsageError
from minidock.kernel.cgroups import Layout
from minidock.model.capabilities import ALL
from minidock.model.spec import SECRET, SUBPATH, TREE, Process, step_spec
from minidock.model.steps import LayerMount, OverlayMount, RootMount, TreeMount
from minidock.runtime.mount_steps import BindMount, MountRoot
from minidock.runtime.plan import Plan, plan

OLD = Layout({"devices": "/sys/fs/cgroup/devices"}, "")
NEW = Layout({}, "/sys/fs/cgroup")


def spec(*args: str) -> dict[str, Any]:
    value = step_spec(
        Process(args or ("true",), ()), rootfs="/c/rootfs", files=(), available=frozenset(ALL), network="none"
    )
    value["annotations"]["io.minidock.seccomp"] = "unconfined"
    return value


def planned(value: dict[str, Any], tmp_path: Path, layout: Layout = OLD, root: RootMount | None = None) -> Plan:
    root = root or OverlayMount(("/l",), "/u", "/w")
    return plan(value, root=root, cgroup="c", seccomp_cache=str(tmp_path), layout=layout)


def names(steps: tuple[Any, ...]) -> list[str]:
    return [type(step).__name__ for step in steps]


def test_mounts_come_in_the_specs_order_and_devices_right_after_dev(tmp_path: Path) -> None:
    value = spec()
    value["mounts"].append({"destination": "/dev/x", "type": "bind", "source": "/s", "options": ["bind"]})
    steps = planned(value, tmp_path).mounts
    assert names(steps[:4]) == ["JoinCgroup", "LeaveCgroupNamespace", "DetachFromHost", "MountRoot"]
    assert names(steps[4:7]) == ["MountFilesystem", "MountFilesystem", "MakeDevices"]
    targets = [step.target for step in steps if hasattr(step, "target")]
    assert targets == [mount["destination"] for mount in value["mounts"]]


def test_a_directory_at_dev_is_not_filled(tmp_path: Path) -> None:
    value = spec()
    value["mounts"] = [{"destination": "/dev", "type": "bind", "source": "/s", "options": ["bind"]}]
    assert "MakeDevices" not in names(planned(value, tmp_path).mounts)


@pytest.mark.parametrize(("layout", "left"), [(OLD, 1), (NEW, 0)])
def test_the_cgroup_namespace_is_left_by_the_child_on_version_1(tmp_path: Path, layout: Layout, left: int) -> None:
    value = spec()
    value["mounts"] = []
    made = planned(value, tmp_path, layout)
    assert names(made.mounts).count("LeaveCgroupNamespace") == left
    assert ("cgroup" in made.birth.kinds) is not bool(left)


def test_the_root_becomes_read_only_after_everything_that_writes_to_it(tmp_path: Path) -> None:
    value = spec()
    value["root"]["readonly"] = True
    inside = names(planned(value, tmp_path).inside)
    assert inside[inside.index("EnterDirectory") :] == ["EnterDirectory", "ReadOnlyRoot", "DropPrivileges", "Exec"]
    assert "ReadOnlyRoot" not in names(planned(spec(), tmp_path).steps)


def test_the_purpose_of_a_bind_is_told_by_the_spec_not_by_its_path(tmp_path: Path) -> None:
    value = spec()
    mount = {"destination": "/a", "type": "bind", "source": "/srv/volumes/x", "options": ["bind"]}
    value["mounts"] = [mount, mount | {"io.minidock.volume": "v"}]
    whys = [step.why for step in planned(value, tmp_path).mounts if isinstance(step, BindMount)]
    assert whys == ["bind mounts", "volumes"]


def test_roots_are_described(tmp_path: Path) -> None:
    for root, text in (
        (OverlayMount(("/b", "/a")), "mount overlay on /c/rootfs lowerdir=/b:/a"),
        (TreeMount("/t", read_only=True), "mount bind /t on /c/rootfs ro"),
        (TreeMount("/t"), "mount bind /t on /c/rootfs"),
    ):
        (step,) = [step for step in planned(spec(), tmp_path, root=root).mounts if isinstance(step, MountRoot)]
        assert step.describe() == text


def test_limits_that_were_asked_for_are_raised_before_the_capabilities_go(tmp_path: Path) -> None:
    assert "RaiseLimits" not in names(planned(spec(), tmp_path).steps)
    value = spec()
    asked = {"soft": 5, "hard": 2**64 - 1, "io.minidock.asked": True}
    value["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_CPU", **asked}]
    inside = planned(value, tmp_path).inside
    found = names(inside)
    raising = inside[found.index("RaiseLimits")]
    assert raising.describe() == "ulimit cpu=5:unlimited"
    assert found.index("RaiseLimits") + 1 == found.index("SetLimits") < found.index("DropPrivileges")
    assert inside[found.index("SetLimits")].describe() == "limits core=0 cpu=5; oom_score_adj 0"


def test_groups_are_looked_up_with_the_user(tmp_path: Path) -> None:
    value = spec()
    value["annotations"]["io.minidock.groups"] = "wheel 7"
    (step,) = [step for step in planned(value, tmp_path).inside if type(step).__name__ == "ResolveUser"]
    assert step.describe() == "user root and groups wheel 7: look up in the container's /etc/passwd and /etc/group"


@pytest.mark.parametrize(("profile", "steps"), [("docker-default", 1), ("unconfined", 0)])
def test_an_apparmor_profile_is_entered_before_the_capabilities_go(tmp_path: Path, profile: str, steps: int) -> None:
    value = spec()
    value["process"]["apparmorProfile"] = profile
    found = names(planned(value, tmp_path).inside)
    assert found.count("ConfineByAppArmor") == steps
    if steps:
        assert found.index("ConfineByAppArmor") + 1 == found.index("DropPrivileges")


@pytest.mark.parametrize(("key", "value"), [("args", []), ("args", ["\0"]), ("env", ["A=\0"]), ("cwd", "/\0")])
def test_what_cannot_be_executed_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    broken = spec()
    broken["process"][key] = value
    with pytest.raises(UsageError):
        planned(broken, tmp_path)


def test_parts_of_trees_are_mounted_in_their_place_among_the_others(tmp_path: Path) -> None:
    layer = LayerMount("/pin", "a" * 64, "/blobs/a")
    trees = {"/deep/er": OverlayMount((layer, "/l")), "/c": TreeMount("/cache/data")}
    mounts = [
        {
            "destination": target,
            "type": "bind",
            "source": "/place",
            "options": ["bind", "ro"],
            TREE: json.loads(json.dumps(root._asdict())),
            SUBPATH: "a/b",
        }
        for target, root in trees.items()
    ]
    value = step_spec(
        Process(("true",), ()), rootfs="/c/rootfs", files=(), available=frozenset(ALL), network="none", mounts=mounts
    )
    value["annotations"]["io.minidock.seccomp"] = "unconfined"
    made = planned(value, tmp_path)
    assert [step.describe() for step in made.before[1:]] == [
        "open the layers for /deep/er mounted from their tarballs: /blobs/a"
    ]
    assert [step.describe() for step in made.mounts[-2:]] == [
        "open /cache/data; bind /a/b of it on /c bind,ro",
        "mount overlay on /place lowerdir=/blobs/a:/l; bind /a/b of it on /deep/er bind,ro",
    ]


def test_no_text_of_a_step_has_a_secret_in_it(tmp_path: Path) -> None:
    data = base64.b64encode(b"do not tell").decode()
    secret = {"id": "s", "data": data, "mode": 0o400, "uid": 1, "gid": 2}
    mount = {"destination": "/run/s", "type": "bind", "source": "/place", "options": ["bind", "ro"], SECRET: secret}
    value = step_spec(
        Process(("true",), ("TOKEN=do not tell",)),
        rootfs="/c/rootfs",
        files=(),
        available=frozenset(ALL),
        network="none",
        mounts=[mount],
    )
    value["annotations"]["io.minidock.seccomp"] = "unconfined"
    steps = planned(value, tmp_path).steps
    described = "\n".join(step.describe() for step in steps)
    assert "mount tmpfs on /place for the secret 's', mode 0400 owner 1:2; bind it on /run/s" in described
    assert "do not tell" not in described
    assert data not in described + "".join(map(repr, steps))
