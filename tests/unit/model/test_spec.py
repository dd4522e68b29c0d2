"""The default sandbox as data: what is in the spec of a container and of a build step."""

from __future__ import annotations

from typing import Any

import pytest

from minidock.errors import UsageError
from minidock.model.capabilities import ALL, DEFAULT
from minidock.model.container import Record, Settings
from minidock.model.mounts import Mount
from minidock.model.spec import (
    ASKED,
    GROUPS,
    INIT_TARGET,
    LIMITS,
    LXCFS,
    MASKED,
    READ_ONLY,
    SECCOMP,
    SUBPATH,
    SYSCTLS,
    USER,
    VOLUME,
    Process,
    check_target,
    container_spec,
    step_spec,
    with_defaults,
)

EVERYTHING = frozenset(ALL)
DEVICE = {"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}
FLAGS = ["nosuid", "noexec", "nodev"]


def spec(
    *mounts: Mount,
    files: tuple[tuple[str, str], ...] = (),
    init_program: str = "",
    profile: str = "",
    devices_found: tuple[dict[str, Any], ...] = (),
    rules_found: tuple[dict[str, Any], ...] = (),
    **settings: Any,
) -> dict[str, Any]:
    settings.setdefault("network", "bridge")
    value = Settings("image", mounts=mounts, **settings)
    record = Record(
        id="a" * 64,
        name="one",
        created=1,
        image="image",
        image_id="",
        diff_ids=(),
        driver="overlay2",
        args=("echo", "hi"),
        env=("A=b",),
        workdir=value.workdir,
        user=value.user,
        hostname="host",
        labels=(),
        mounts=mounts,
        anonymous=(),
        exposed_ports=(),
        stop_signal="",
        settings=value,
    )
    return container_spec(
        record,
        rootfs="/c/rootfs",
        files=files,
        volume_path=lambda name: f"/v/{name}/_data",
        available=EVERYTHING,
        devices=devices_found or ((DEVICE,) if value.privileged else ()),
        device_rules=rules_found,
        profile=profile,
        cgroups_path="/minidock/a",
        init=init_program,
    )


def destinations(value: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in value["mounts"]]


def mount_at(value: dict[str, Any], target: str) -> dict[str, Any]:
    (found,) = [mount for mount in value["mounts"] if mount["destination"] == target]
    return found


def test_the_default_container() -> None:
    value = spec(user="bob", workdir="/w")
    process, linux = value["process"], value["linux"]
    assert process["args"] == ["echo", "hi"]
    assert process["cwd"] == "/w"
    assert process["capabilities"] == dict.fromkeys(("bounding", "effective", "permitted"), sorted(DEFAULT))
    assert (process["noNewPrivileges"], process["oomScoreAdj"], process["terminal"]) == (False, 0, False)
    assert process["rlimits"] == [{"type": name, "soft": soft, "hard": hard} for name, soft, hard in LIMITS]
    assert value["annotations"] == {USER: "bob", SECCOMP: "builtin"}
    assert value["root"] == {"path": "/c/rootfs", "readonly": False}
    assert value["hostname"] == "host"
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == (list(MASKED), list(READ_ONLY))
    kinds = [namespace["type"] for namespace in linux["namespaces"]]
    assert kinds == ["mount", "pid", "uts", "ipc", "cgroup", "network"]
    assert linux["resources"]["pids"] == {"limit": 2048}
    assert linux["sysctl"] == {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}
    assert linux["cgroupsPath"] == "/minidock/a"
    assert [device["path"] for device in linux["devices"]] == [
        f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")
    ]
    assert {device["fileMode"] for device in linux["devices"]} == {0o666}


def test_the_default_mounts() -> None:
    value = spec()
    table = {mount["destination"]: (mount["type"], mount["options"]) for mount in value["mounts"]}
    assert table == {
        "/proc": ("proc", FLAGS),
        "/dev": ("tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        "/dev/pts": ("devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        "/dev/mqueue": ("mqueue", FLAGS),
        "/dev/shm": ("tmpfs", [*FLAGS, "mode=1777", "size=67108864"]),
        "/sys": ("sysfs", [*FLAGS, "ro"]),
        "/sys/fs/cgroup": ("cgroup", [*FLAGS, "ro"]),
    }
    assert mount_at(spec(shm_size=1024), "/dev/shm")["options"][-1] == "size=1024"


def test_the_device_rules() -> None:
    rules = spec()["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert [rule for rule in rules if rule["access"] == "m"] == [
        {"allow": True, "type": kind, "access": "m"} for kind in "cb"
    ]
    numbers = {(rule["major"], rule.get("minor")) for rule in rules if rule["access"] == "rwm" and rule["allow"]}
    assert numbers == {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None)}


def test_privileged() -> None:
    value = spec(privileged=True)
    linux = value["linux"]
    assert value["process"]["capabilities"]["bounding"] == sorted(EVERYTHING)
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], [])
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert linux["devices"][-1] == DEVICE
    assert value["annotations"][SECCOMP] == "unconfined"
    assert mount_at(value, "/sys")["options"][-1] == mount_at(value, "/sys/fs/cgroup")["options"][-1] == "rw"
    assert spec(privileged=True, security_opt=("seccomp=builtin",))["annotations"][SECCOMP] == "builtin"


def test_host_network() -> None:
    value = spec(network="host")
    assert {"type": "network"} not in value["linux"]["namespaces"]
    assert value["linux"]["sysctl"] == {}


def test_security_options_in_the_spec() -> None:
    value = spec(security_opt=("no-new-privileges", "seccomp=unconfined", "systempaths=unconfined"))
    assert value["process"]["noNewPrivileges"] is True
    assert value["annotations"][SECCOMP] == "unconfined"
    assert value["linux"]["maskedPaths"] == []
    assert value["process"]["capabilities"]["bounding"] == sorted(DEFAULT)
    assert mount_at(value, "/sys")["options"][-1] == "ro"


def test_a_profile_is_where_it_is_kept() -> None:
    named = ("seccomp=/host/p.json",)
    assert spec(security_opt=named, profile="/c/seccomp.json")["annotations"][SECCOMP] == "/c/seccomp.json"
    assert spec(security_opt=named)["annotations"][SECCOMP] == "/host/p.json"
    assert spec(profile="/c/seccomp.json")["annotations"][SECCOMP] == "builtin"
    assert spec(security_opt=("seccomp=unconfined",), profile="/c/p")["annotations"][SECCOMP] == "unconfined"
    assert spec(security_opt=named, privileged=True, profile="/c/p")["annotations"][SECCOMP] == "/c/p"


def test_apparmor() -> None:
    assert "apparmorProfile" not in spec()["process"]
    assert spec(security_opt=("apparmor=docker-default",))["process"]["apparmorProfile"] == "docker-default"


def test_limits_that_were_asked_for_take_the_place_of_the_default() -> None:
    rlimits = {limit["type"]: limit for limit in spec(ulimits=("nofile=10:20", "cpu=-1"))["process"]["rlimits"]}
    assert rlimits["RLIMIT_NOFILE"] == {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20, ASKED: True}
    assert rlimits["RLIMIT_CPU"] == {"type": "RLIMIT_CPU", "soft": 2**64 - 1, "hard": 2**64 - 1, ASKED: True}
    assert ASKED not in rlimits["RLIMIT_CORE"]
    assert len(rlimits) == len(LIMITS) + 1


def test_sysctls_come_after_the_default_ones() -> None:
    asked = ("kernel.sem=1 2 3 4", "net.ipv4.ip_unprivileged_port_start=1024")
    assert spec(sysctls=asked)["linux"]["sysctl"] == {
        **dict(SYSCTLS),
        "kernel.sem": "1 2 3 4",
        "net.ipv4.ip_unprivileged_port_start": "1024",
    }
    assert spec(sysctls=asked[:1], network="host")["linux"]["sysctl"] == {"kernel.sem": "1 2 3 4"}


def test_further_devices_and_rules() -> None:
    rule = {"allow": True, "type": "c", "major": 10, "minor": 232, "access": "r"}
    linux = spec(devices_found=(DEVICE,), rules_found=(rule,))["linux"]
    assert linux["devices"][-1] == DEVICE
    assert linux["resources"]["devices"][-1] == rule
    other = {**DEVICE, "path": "/dev/zero"}
    paths = [device["path"] for device in spec(devices_found=(other,))["linux"]["devices"]]
    assert sorted(paths) == sorted(set(paths))
    assert other in spec(devices_found=(other,))["linux"]["devices"]
    assert spec(privileged=True, rules_found=(rule,))["linux"]["resources"]["devices"] == [
        {"allow": True, "access": "rwm"}
    ]


def test_further_groups() -> None:
    assert spec(group_add=("wheel", "7"))["annotations"][GROUPS] == "wheel 7"
    assert GROUPS not in spec()["annotations"]


def test_mounts_are_listed_in_the_order_in_which_they_are_made() -> None:
    value = spec(
        Mount("volume", "v", "/a/b/c"),
        Mount("bind", "/src", "/a"),
        Mount("tmpfs", "", "/a/b"),
        files=(("/etc/hosts", "/c/hosts"),),
    )
    assert destinations(value)[7:] == ["/a", "/etc/hosts", "/a/b", "/a/b/c"]


@pytest.mark.parametrize("kind", ["bind", "volume", "tmpfs"])
def test_a_mount_takes_the_place_of_the_engines_own(kind: str) -> None:
    value = spec(Mount(kind, "/x" if kind == "bind" else "x", "/dev/shm"))
    assert destinations(value).count("/dev/shm") == 1
    assert value["mounts"][-1]["destination"] == "/dev/shm"
    assert "/dev/pts" in destinations(value)


def test_what_lies_below_a_replaced_mount_goes_with_it() -> None:
    assert destinations(spec(Mount("bind", "/x", "/dev"))) == ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]
    assert destinations(spec(Mount("volume", "x", "/sys")))[-1] == "/sys"
    assert "/sys/fs/cgroup" not in destinations(spec(Mount("volume", "x", "/sys")))
    assert "/sys" in destinations(spec(Mount("volume", "x", "/sys/fs/cgroup")))
    assert "/dev/shm" in destinations(spec(Mount("volume", "x", "/devices")))


def test_devices_are_made_in_a_tmpfs_only() -> None:
    assert spec(Mount("bind", "/x", "/dev"), privileged=True)["linux"]["devices"] == []
    assert len(spec(Mount("tmpfs", "", "/dev"))["linux"]["devices"]) == 6


def test_user_mounts() -> None:
    value = spec(
        Mount("volume", "v", "/v", read_only=True, subpath="a/b"),
        Mount("bind", "/s", "/b", propagation="rslave"),
        Mount("bind", "/s", "/one", recursive="disabled", read_only=True),
        Mount("bind", "/s", "/ro", recursive="writable", read_only=True),
        Mount("tmpfs", "", "/t", read_only=True, options=("size=1m", "exec")),
    )
    volume = mount_at(value, "/v")
    assert (volume["source"], volume["options"]) == ("/v/v/_data", ["rbind", "rprivate", "rro"])
    assert (volume[SUBPATH], volume[VOLUME]) == ("a/b", "v")
    bind = mount_at(value, "/b")
    assert (bind["source"], bind["options"], VOLUME in bind) == ("/s", ["rbind", "rslave"], False)
    assert mount_at(value, "/one")["options"] == ["bind", "rprivate", "rro"]
    assert mount_at(value, "/ro")["options"] == ["rbind", "rprivate", "ro"]
    assert mount_at(value, "/t")["options"] == [*FLAGS, "ro", "size=1m", "exec"]


def test_init_stands_before_the_command() -> None:
    value = spec(init_program="/usr/bin/tini", init=True)
    assert value["process"]["args"] == [INIT_TARGET, "--", "echo", "hi"]
    assert mount_at(value, INIT_TARGET)["options"] == ["bind", "rprivate", "ro"]
    assert INIT_TARGET not in destinations(spec())


@pytest.mark.parametrize(
    ("target", "expected"),
    [("/a", "/a"), ("a", "/a"), ("//a//b/", "/a/b"), ("/a/../b", "/b"), ("/proc/cpuinfo", "/proc/cpuinfo")],
)
def test_targets_are_made_canonical(target: str, expected: str) -> None:
    assert check_target(target) == expected


@pytest.mark.parametrize(
    "target", ["/proc", "/proc/", "/proc/sys", "/proc//sys", "/x/../proc/1", "//proc/self", "proc"]
)
def test_targets_in_proc_are_refused(target: str) -> None:
    with pytest.raises(UsageError, match="nothing may be mounted inside /proc"):
        check_target(target)


@pytest.mark.parametrize("target", ["/", "//", "/a/..", "", "/."])
def test_the_root_is_no_target(target: str) -> None:
    with pytest.raises(UsageError, match="cannot replace the container's root"):
        check_target(target)


def test_files_of_lxcfs_may_be_mounted() -> None:
    assert {check_target(path) for path in LXCFS} == LXCFS


def test_defaults_of_the_environment() -> None:
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert with_defaults(("A=1",), hostname="h", terminal=True) == (path, "HOSTNAME=h", "TERM=xterm", "A=1")
    given = ("PATH=/x", "HOSTNAME=other", "TERM=vt100")
    assert with_defaults(given, hostname="h", terminal=True) == given
    assert with_defaults((), hostname="", terminal=False) == (path,)


def test_the_spec_of_a_build_step() -> None:
    value = step_spec(
        Process(("true",), ("A=1",), "/w", "bob"),
        rootfs="/s/rootfs",
        files=(("/etc/hosts", "/s/hosts"),),
        available=EVERYTHING,
        network="none",
    )
    assert value["hostname"] == "buildkitsandbox"
    assert value["process"]["capabilities"]["bounding"] == sorted(DEFAULT)
    assert [entry.partition("=")[0] for entry in value["process"]["env"]] == ["PATH", "A"]
    assert value["annotations"] == {USER: "bob", SECCOMP: "builtin"}
    assert value["mounts"][-1]["source"] == "/s/hosts"
    assert {"type": "network"} in value["linux"]["namespaces"]


def test_capabilities_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="unknown capability 'FLY'"):
        spec(cap_add=("FLY",))
