"""RUN --device for real: a device of a CDI specification in a command's sandbox, and in no other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KIND = "minidock-test.example/node"


@pytest.fixture
def specification(tmp_path: Path) -> Iterator[None]:
    """A specification of one device, which is gone when the test ends."""
    (tmp_path / "library").write_text("a library\n")
    edits = {
        "env": ["DEVICE_IS=here"],
        "deviceNodes": [{"path": "/dev/random-of-mine", "hostPath": "/dev/urandom", "permissions": "r"}],
        "mounts": [{"hostPath": f"{tmp_path}/library", "containerPath": "/opt/lib/library", "options": ["ro"]}],
        "additionalGids": [4242],
        "hooks": [{"hookName": "createContainer", "path": "/bin/false"}],
    }
    value = {"cdiVersion": "0.6.0", "kind": KIND, "devices": [{"name": "one", "containerEdits": edits}]}
    path = Path(f"/var/run/cdi/minidock-test-{os.getpid()}.json")
    made = not path.parent.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
    yield
    path.unlink()
    if made:
        path.parent.rmdir()


def test_a_device_is_in_the_command_that_asks_for_it(
    minidock: Any, context: Callable[..., Path], specification: None
) -> None:
    ask = f"RUN --device={KIND}=one,required"
    folder = context(
        f"FROM busybox\n{ask} head -c 4 /dev/random-of-mine | wc -c; echo $DEVICE_IS; cat /opt/lib/library; id -G\n"
        "RUN ls /dev/random-of-mine /opt || echo $DEVICE_IS nothing is left\n"
    )
    told = minidock.build(folder, "-t", "made", "--allow", f"device={KIND}=one")
    said = [line.split(" ", 2)[2] for line in told.splitlines() if line.count(" ") >= 2 and line[0] == "#"]
    for line in ("4", "here", "a library", "nothing is left"):
        assert line in said, told
    assert any("4242" in line.split() for line in said), told
    assert f"hooks of the device {KIND}=one are left out" in said
    layers = minidock.inspect("made")["RootFS"]["Layers"]
    assert len(layers) == len(minidock.inspect("busybox")["RootFS"]["Layers"]), "it leaves nothing in a layer"
    assert "CACHED" in minidock.build(folder, "--allow", "device")


def test_devices_that_are_not_allowed_or_not_there(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context(f"FROM busybox\nRUN --device={KIND}=none echo ran\n")
    told = minidock.build(folder, status=1)
    assert f"device is not allowed: RUN --device={KIND}=none asks for it" in told
    assert f"--allow device={KIND}=none" in told
    told = minidock.build(folder, "--allow", "device")
    assert f"there is no device {KIND}=none: the command runs without it" in told
    assert " ran" in told
    folder = context(f"FROM busybox\nRUN --device={KIND}=none,required echo ran\n")
    told = minidock.build(folder, "--allow", "device", status=1)
    assert f"there is no device {KIND}=none on this host" in told
    told = minidock.build(context("FROM busybox\nRUN --device=/dev/null true\n"), "--allow", "device", status=1)
    assert "invalid device '/dev/null'" in told
