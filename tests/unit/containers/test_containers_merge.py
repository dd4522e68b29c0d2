"""What the flags say and what the image says, made one."""

from __future__ import annotations

from typing import Any

import pytest

from minidock.containers import create, merge
from minidock.errors import InvalidReferenceError, MountSpecError, UsageError
from minidock.model.container import Settings
from minidock.model.mounts import Mount
from minidock.model.oci import ImageConfig
from minidock.model.spec import DEFAULT_PATH

IMAGE_ID = "sha256:" + "a" * 64


def config(**fields: Any) -> ImageConfig:
    made = ImageConfig.new(architecture="amd64")
    made.config.update(fields)
    return made


@pytest.mark.parametrize(
    ("image", "flags", "expected"),
    [
        ({"Cmd": ["c"]}, {}, ("c",)),
        ({"Entrypoint": ["e"]}, {}, ("e",)),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {}, ("e", "c")),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"command": ("x", "y")}, ("e", "x", "y")),
        ({"Entrypoint": ["/bin/sh", "-c", "e"], "Cmd": ["c"]}, {"command": ("x",)}, ("/bin/sh", "-c", "e", "x")),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": ("f",)}, ("f",)),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": ("f",), "command": ("x",)}, ("f", "x")),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": (), "command": ("x",)}, ("x",)),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": ("",), "command": ("x",)}, ("x",)),
        ({"Entrypoint": None, "Cmd": None}, {"command": ("x",)}, ("x",)),
    ],
)
def test_entrypoint_and_command(image: dict[str, Any], flags: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert merge.merge_args(Settings("i", **flags), config(**image)) == expected


@pytest.mark.parametrize(("image", "flags"), [({}, {}), ({"Cmd": ["c"]}, {"entrypoint": ()}), ({"Cmd": []}, {})])
def test_nothing_to_run_is_an_error(image: dict[str, Any], flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no command specified") as caught:
        merge.merge_args(Settings("i", **flags), config(**image))
    assert caught.value.exit_status == 125


def test_environment_flags_win_and_each_name_is_there_once() -> None:
    env = merge.merge_env(["A=1", "B=2", "PATH=/image"], ["B=3", "C=", "A"])
    assert set(env) == {"PATH=/image", "B=3", "C="}


def test_path_is_always_there() -> None:
    assert DEFAULT_PATH in merge.merge_env([], [])
    assert merge.merge_env([], ["PATH=/x"]) == ("PATH=/x",)
    assert DEFAULT_PATH in merge.merge_env(["PATH=/image"], ["PATH"])


def test_a_nameless_variable_is_an_error() -> None:
    with pytest.raises(UsageError, match="=x"):
        merge.merge_env([], ["=x"])


def test_workdir_flag_then_image_then_root() -> None:
    image = config(WorkingDir="/img")
    assert merge.merge_workdir(Settings("i", workdir="/w/../v"), image) == "/v"
    assert merge.merge_workdir(Settings("i"), image) == "/img"
    assert merge.merge_workdir(Settings("i"), config()) == "/"
    with pytest.raises(UsageError, match="absolute"):
        merge.merge_workdir(Settings("i", workdir="rel"), image)


def test_labels_flags_win() -> None:
    labels = merge.merge_labels(Settings("i", labels=(("a", "2"), ("c", "3"))), config(Labels={"a": "1", "b": "1"}))
    assert dict(labels) == {"a": "2", "b": "1", "c": "3"}


def test_stop_signal_flag_then_image_then_term() -> None:
    image = config(StopSignal="SIGQUIT")
    assert merge.merge_stop_signal(Settings("i", stop_signal="USR1"), image) == "USR1"
    assert merge.merge_stop_signal(Settings("i"), image) == "SIGQUIT"
    assert merge.merge_stop_signal(Settings("i"), config()) == "SIGTERM"
    with pytest.raises(UsageError, match="NOPE"):
        merge.merge_stop_signal(Settings("i", stop_signal="NOPE"), image)


def test_mounts_go_shallow_first_whatever_their_order() -> None:
    deep = Mount("volume", "b", "/x/y", create=True, origin="-v")
    shallow = Mount("volume", "a", "/x", create=True, origin="-v")
    for given in ((deep, shallow), (shallow, deep)):
        targets = [m.target for m in merge.merge_mounts(Settings("i", mounts=given), config())]
        assert targets == ["/x", "/x/y"]


@pytest.mark.parametrize("second", ["/d", "/d/", "/d/../d"])
def test_two_mounts_on_one_target_are_an_error(second: str) -> None:
    mounts = (Mount("volume", "a", "/d", origin="-v"), Mount("tmpfs", "", second, origin="--tmpfs"))
    with pytest.raises(MountSpecError, match="duplicate mount point: /d") as caught:
        merge.merge_mounts(Settings("i", mounts=mounts), config())
    assert caught.value.exit_status == 125


def test_image_volumes_become_anonymous_unless_something_is_mounted_there() -> None:
    mounts = merge.merge_mounts(
        Settings("i", mounts=(Mount("bind", "/h", "/data", origin="-v"),)), config(Volumes={"/data": {}, "/more/": {}})
    )
    assert [(m.type, m.target, m.anonymous, m.origin) for m in mounts] == [
        ("bind", "/data", False, "-v"),
        ("volume", "/more", True, "VOLUME"),
    ]


@pytest.mark.parametrize("target", ["/", "/proc", "/proc//sys", "/x/../proc/kcore"])
def test_targets_where_nothing_may_be_mounted(target: str) -> None:
    with pytest.raises(UsageError) as caught:
        merge.merge_mounts(Settings("i", mounts=(Mount("volume", "a", target),)), config())
    assert caught.value.exit_status == 125


def test_the_record_names_every_volume() -> None:
    settings = Settings("busybox", mounts=(Mount("volume", "", "/a"), Mount("volume", "named", "/n", create=True)))
    record = create.plan_record(
        settings, image_id=IMAGE_ID, config=config(Cmd=["sh"], Volumes={"/v": {}}, User="bob"), driver="overlay2"
    )
    anonymous = {m.target: m.source for m in record.mounts if m.anonymous}
    assert set(anonymous) == {"/a", "/v"}
    assert all(len(name) == 64 and int(name, 16) >= 0 for name in anonymous.values())
    assert set(record.anonymous) == set(anonymous.values())
    assert record.hostname == record.id[:12]
    assert record.user == "bob"
    assert record.args == ("sh",)
    assert record.image_id == IMAGE_ID
    assert len(record.name) >= 2


def test_names_and_networks_are_checked() -> None:
    with pytest.raises(InvalidReferenceError, match="-bad"):
        create.plan_record(Settings("i", name="-bad"), image_id=IMAGE_ID, config=config(Cmd=["c"]), driver="vfs")
    with pytest.raises(UsageError, match="mynet"):
        create.plan_record(Settings("i", network="mynet"), image_id=IMAGE_ID, config=config(Cmd=["c"]), driver="vfs")


@pytest.mark.parametrize(
    "flags",
    [
        {"cap_add": ("NO_SUCH",)},
        {"cap_drop": ("x",)},
        {"security_opt": ("nonsense",)},
        {"security_opt": ("label=type:x",)},
        {"network": "none-such"},
        {"ulimits": ("files=1",)},
        {"sysctls": ("vm.swappiness=1",)},
        {"sysctls": ("net.core.somaxconn=1",), "network": "host"},
        {"devices": ("/dev/null:/etc/null",)},
        {"devices": ("/dev/absent",)},
        {"device_cgroup_rules": ("c 1:3",)},
        {"group_add": ("a b",)},
    ],
)
def test_walls_are_checked_before_anything_is_made(flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        create.plan_record(Settings("i", **flags), image_id=IMAGE_ID, config=config(Cmd=["c"]), driver="vfs")


def test_exposed_ports_are_sorted() -> None:
    assert merge.exposed_ports(config(ExposedPorts={"80/tcp": {}, "53/udp": {}})) == ("53/udp", "80/tcp")
