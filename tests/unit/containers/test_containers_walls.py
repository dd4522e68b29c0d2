"""Devices of the host, and the security modules that it has or not."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from minidock.containers.devices import devices_of, host_devices
from minidock.containers.walls import check_walls
from minidock.errors import UsageError
from minidock.kernel import lsm
from minidock.model.container import Settings


def paths(nodes: tuple[dict[str, Any], ...]) -> list[str]:
    return [node["path"] for node in nodes]


def test_a_device_is_a_node_and_a_rule() -> None:
    (node,), (rule,) = devices_of(Settings("i", devices=("/dev/null:/dev/hole:r",)))
    status = os.stat("/dev/null")
    assert node == {
        "path": "/dev/hole",
        "type": "c",
        "major": 1,
        "minor": 3,
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
    assert rule == {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    (node,), _ = devices_of(Settings("i", devices=(f"{tmp_path}/link:/dev/x",)))
    assert (node["path"], node["major"], node["minor"]) == ("/dev/x", 1, 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes, which needs root")
def test_a_directory_is_all_devices_below_it(tmp_path: Path) -> None:
    (tmp_path / "real/sub").mkdir(parents=True)
    (tmp_path / "real/pts").mkdir()
    for name, minor in (("real/a", 3), ("real/sub/b", 5), ("real/pts/0", 7), ("real/fd", 7)):
        os.mknod(tmp_path / name, 0o020600, os.makedev(1, minor))
    (tmp_path / "real/file").write_text("")
    (tmp_path / "real/link").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "real/pipe")
    (tmp_path / "top").symlink_to("real")
    nodes, rules = devices_of(Settings("i", devices=(f"{tmp_path}/top:/dev/dir:rw",)))
    assert paths(nodes) == ["/dev/dir/a", "/dev/dir/fd", "/dev/dir/sub/b"]
    assert [(rule["minor"], rule["access"]) for rule in rules] == [(3, "rw"), (7, "rw"), (5, "rw")]
    nodes, _ = devices_of(Settings("i", devices=(f"{tmp_path}/top:/dev",)))
    assert paths(nodes) == ["/dev/a", "/dev/sub/b"], "/dev/fd is every container's own"


def test_what_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dir").mkdir()
    for name, reason in (
        ("absent", "no such file or directory"),
        ("file", "it is not a device"),
        ("dir", "there is no device in the directory"),
    ):
        with pytest.raises(UsageError) as caught:
            devices_of(Settings("i", devices=(f"{tmp_path}/{name}:/dev/x",)))
        assert caught.value.message == f"cannot use device {tmp_path}/{name}: {reason}"
    with pytest.raises(UsageError, match="as /dev, which is a directory"):
        devices_of(Settings("i", devices=("/dev/null:/dev",)))


def test_privileged_has_all_and_those_asked_for() -> None:
    nodes, _ = devices_of(Settings("i", privileged=True, devices=("/dev/null:/dev/hole",)))
    assert paths(nodes) == [*paths(host_devices()), "/dev/hole"]
    assert not {"/dev/null", "/dev/ptmx", "/dev/console"} & set(paths(host_devices()))


def test_rules_come_last() -> None:
    _, rules = devices_of(Settings("i", devices=("/dev/null",), device_cgroup_rules=("b 8:* r",)))
    assert rules[1] == {"allow": True, "type": "b", "major": 8, "access": "r"}


NOTHING: dict[str, Any] = {"has_selinux": False, "has_apparmor": False, "apparmor_profiles": None}
SELINUX = NOTHING | {"has_selinux": True}
APPARMOR = NOTHING | {"has_apparmor": True}


@pytest.mark.parametrize(
    ("option", "modules", "reason"),
    [
        ("label=type:x", NOTHING, "this host has no SELinux"),
        ("label=type:x", SELINUX, "minidock does not label containers yet"),
        ("apparmor=web", NOTHING, "this host has no AppArmor"),
        ("apparmor=web", APPARMOR | {"apparmor_profiles": {"other"}}, "no profile of that name is loaded"),
        ("apparmor=web", APPARMOR | {"apparmor_profiles": {"web"}}, ""),
        ("apparmor=web", APPARMOR, ""),
        ("apparmor=unconfined", NOTHING, ""),
        ("label=disable", NOTHING, ""),
    ],
)
def test_security_modules(monkeypatch: pytest.MonkeyPatch, option: str, modules: dict[str, Any], reason: str) -> None:
    for name, value in modules.items():
        monkeypatch.setattr(lsm, name, lambda value=value: value)
    settings = Settings("i", security_opt=(option,))
    if not reason:
        check_walls(settings)
        return
    with pytest.raises(UsageError) as caught:
        check_walls(settings)
    assert caught.value.message == f"cannot use --security-opt {option}: {reason}"


def test_the_kernel_s_list_of_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lsm, "_PROFILES", str(tmp_path / "profiles"))
    monkeypatch.setattr(lsm, "_APPARMOR", str(tmp_path / "enabled"))
    assert lsm.apparmor_profiles() is None
    assert not lsm.has_apparmor()
    (tmp_path / "profiles").write_text("docker-default (enforce)\n/usr/bin/x (y) (complain)\n")
    (tmp_path / "enabled").write_text("Y\n")
    assert lsm.apparmor_profiles() == {"docker-default", "/usr/bin/x (y)"}
    assert lsm.has_apparmor()
