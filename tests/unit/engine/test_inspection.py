"""Docker's inspect, from a record and a state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minidock.engine.inspection import describe
from minidock.model.container import PAUSED, RUNNING, Record, Settings, State
from minidock.model.mounts import Mount
from minidock.store.layout import DataRoot
from minidock.volumes.volumes import Volumes

ID = "ab" * 32
SECOND = 10**9


def record(**settings: Any) -> Record:
    mounts = (
        Mount("volume", "data", "/data", create=True, origin="-v"),
        Mount("bind", "/host", "/h", read_only=True, origin="--mount"),
        Mount("tmpfs", "", "/t", options=("noexec",), origin="--tmpfs"),
        Mount("volume", "f" * 64, "/v", anonymous=True, origin="VOLUME"),
    )
    chosen = Settings("img", ("-l",), mounts=mounts[:3], **settings)
    return Record(
        id=ID,
        name="web",
        created=1_700_000_000 * SECOND,
        image="img",
        image_id="sha256:" + "1" * 64,
        diff_ids=("sha256:" + "2" * 64,),
        driver="overlay2",
        args=("ls", "-l"),
        env=("PATH=/bin",),
        workdir="/w",
        user="app",
        hostname="abababababab",
        labels=(("a", "b"),),
        mounts=mounts,
        anonymous=("f" * 64,),
        exposed_ports=("80/tcp",),
        stop_signal="SIGTERM",
        settings=chosen,
    )


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(str(tmp_path), run=str(tmp_path / "run"))


def test_the_shape(root: DataRoot) -> None:
    state = State(RUNNING, pid=12, started=1_700_000_001 * SECOND + 5, address="10.90.0.2")
    found = describe(record(), state, root=root, volumes=Volumes(root))
    assert (found["Id"], found["Name"], found["Path"], found["Args"]) == (ID, "/web", "ls", ["-l"])
    assert found["Created"] == "2023-11-14T22:13:20.000000000Z"
    assert found["State"]["Status"] == "running"
    assert found["State"]["Running"] is True
    assert found["State"]["Pid"] == 12
    assert found["State"]["StartedAt"] == "2023-11-14T22:13:21.000000005Z"
    assert found["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert found["Image"] == "sha256:" + "1" * 64
    assert found["NetworkSettings"]["IPAddress"] == "10.90.0.2"
    assert found["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "10.90.0.2"
    assert found["Config"]["Labels"] == {"a": "b"}
    assert found["Config"]["Cmd"] == ["-l"]
    assert found["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert found["RestartCount"] == 0


def test_mounts(root: DataRoot) -> None:
    found = describe(record(), State(), root=root, volumes=Volumes(root))
    volume, bind, tmpfs, anonymous = found["Mounts"]
    assert volume == {
        "Type": "volume",
        "Name": "data",
        "Source": f"{root.volumes}/data/_data",
        "Destination": "/data",
        "Driver": "local",
        "Mode": "",
        "RW": True,
        "Propagation": "",
    }
    assert (bind["Source"], bind["RW"], bind["Mode"], bind["Propagation"]) == ("/host", False, "ro", "rprivate")
    assert (tmpfs["Type"], tmpfs["Mode"]) == ("tmpfs", "noexec")
    assert anonymous["Name"] == "f" * 64
    assert found["HostConfig"]["Binds"] == ["data:/data"]
    assert found["HostConfig"]["Mounts"][0]["Target"] == "/h"
    assert found["HostConfig"]["Tmpfs"] == {"/t": "noexec"}


def test_settings_are_told(root: DataRoot) -> None:
    asked = record(privileged=True, keep=True, auto_remove=True, network="none", cap_add=("ALL",), entrypoint=("ls",))
    found = describe(asked, State(PAUSED, pid=1), root=root, volumes=Volumes(root))
    host = found["HostConfig"]
    assert (host["Privileged"], host["KeepLayer"], host["AutoRemove"]) == (True, True, True)
    assert (host["NetworkMode"], host["CapAdd"], host["CapDrop"]) == ("none", ["ALL"], None)
    assert found["Config"]["Entrypoint"] == ["ls"]
    assert found["State"]["Paused"] is True


def test_limits_devices_and_groups_are_told_as_docker_has_them(root: DataRoot) -> None:
    asked = record(
        ulimits=("nofile=10:20", "core=-1"),
        sysctls=("kernel.sem=1 2=3",),
        devices=("/dev/null:/dev/other:r",),
        device_cgroup_rules=("c 10:* r",),
        group_add=("wheel", "7"),
        security_opt=("apparmor=unconfined",),
    )
    host = describe(asked, State(), root=root, volumes=Volumes(root))["HostConfig"]
    assert host["Ulimits"] == [
        {"Name": "nofile", "Hard": 20, "Soft": 10},
        {"Name": "core", "Hard": -1, "Soft": -1},
    ]
    assert host["Sysctls"] == {"kernel.sem": "1 2=3"}
    assert host["Devices"] == [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/other", "CgroupPermissions": "r"}]
    assert host["DeviceCgroupRules"] == ["c 10:* r"]
    assert host["GroupAdd"] == ["wheel", "7"]
    assert host["SecurityOpt"] == ["apparmor=unconfined"]
    nothing = describe(record(), State(), root=root, volumes=Volumes(root))["HostConfig"]
    names = ("Ulimits", "Sysctls", "Devices", "DeviceCgroupRules", "GroupAdd", "SecurityOpt")
    assert [nothing[name] for name in names] == [None] * 6


def test_a_seccomp_profile_is_told_by_its_text(root: DataRoot) -> None:
    asked = record(security_opt=("seccomp=/host/p.json", "no-new-privileges"))
    directory = Path(root.container_dir(ID))
    directory.mkdir(parents=True)
    (directory / "seccomp.json").write_text('{\n  "defaultAction": "SCMP_ACT_ALLOW"\n}')
    host = describe(asked, State(), root=root, volumes=Volumes(root))["HostConfig"]
    assert host["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}', "no-new-privileges"]
    (directory / "seccomp.json").unlink()
    host = describe(asked, State(), root=root, volumes=Volumes(root))["HostConfig"]
    assert host["SecurityOpt"] == ["seccomp=/host/p.json", "no-new-privileges"]


def test_a_container_at_rest_has_no_address(root: DataRoot) -> None:
    state = State("exited", exit_code=3, finished=SECOND, address="10.90.0.2", error="why")
    found = describe(record(), state, root=root, volumes=Volumes(root))
    assert found["NetworkSettings"]["IPAddress"] == ""
    assert (found["State"]["ExitCode"], found["State"]["Error"], found["State"]["Running"]) == (3, "why", False)
