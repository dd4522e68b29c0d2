"""The owner's story, sentence by sentence, on the installed command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(params=["tarball", "tree"])
def layers(request: pytest.FixtureRequest) -> str:
    return str(request.param)


LINES = """\
FROM busybox
RUN mkdir /one && echo first > /one/file
ENV NOTHING=changed
RUN echo second > /two
CMD ["cat", "/two"]
"""


def layers_of(minidock, image: str) -> list[str]:
    return json.loads(minidock("image", "inspect", image).stdout)[0]["RootFS"]["Layers"]


def layer_names(minidock, digest: str) -> list[str]:
    with tarfile.open(minidock.root / "images/blobs/sha256" / digest.removeprefix("sha256:")) as tar:
        return sorted(tar.getnames())


def folder_of(minidock, name: str) -> Path:
    return minidock.root / "containers" / minidock.inspect(name)["Id"]


def await_line(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == line + b"\n"


@pytest.fixture
def sleeper(minidock) -> Callable[..., str]:
    """Start a container in the background that goes on until it is killed."""

    def start(name: str, *arguments: str, image: str = "busybox", script: str = ":") -> str:
        command = ["sh", "-c", f"{script}; echo ready; exec sleep 1000"]
        minidock("run", "-d", "--name", name, "--network", "none", *arguments, image, *command)
        deadline = time.monotonic() + 10
        while "ready" not in minidock.out("logs", name) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "ready" in minidock.out("logs", name)
        return name

    return start


def test_installing_creates_the_folder_structure(empty_minidock) -> None:
    empty_minidock("info")
    assert {"images", "containers", "volumes"} <= {path.name for path in empty_minidock.root.iterdir()}
    assert (empty_minidock.root / "images/oci-layout").is_file()


def test_files_of_containers_and_volumes_lie_where_they_are_looked_for(minidock, sleeper) -> None:
    sleeper("one", "-v", "volume_1:/data")
    folder = folder_of(minidock, "one")
    assert folder.parent == minidock.root / "containers"
    assert json.loads((folder / "config.json").read_text())["ociVersion"]
    assert "ready" in (folder / "log").read_text()
    assert (minidock.root / "volumes/volume_1/_data").is_dir()


def test_each_line_that_changes_files_becomes_a_layer(minidock, context) -> None:
    base = layers_of(minidock, "busybox")
    minidock.build(context(LINES), "-t", "story")
    layers = layers_of(minidock, "story")
    assert layers[: len(base)] == base
    assert len(layers) == len(base) + 2


def test_a_layer_holds_only_the_changes_from_the_one_before(minidock, context) -> None:
    minidock.build(context(LINES), "-t", "story")
    first, second = layers_of(minidock, "story")[-2:]
    assert layer_names(minidock, first) == [".", "one", "one/file"]
    assert layer_names(minidock, second) == [".", "two"]


def test_what_is_alike_is_not_stored_again(minidock, context) -> None:
    minidock.build(context("FROM busybox\nRUN echo x > /x\nRUN touch -r /bin /t; cp -p /x /y && mv /y /x\n"), "-t", "a")
    assert layer_names(minidock, layers_of(minidock, "a")[-1]) == [".", "t"]
    before = sorted(os.listdir(minidock.root / "images/blobs/sha256"))
    minidock.build(context("FROM a\nRUN cp -p /x /y && mv /y /x\n"), "-t", "b")
    assert layers_of(minidock, "b") == layers_of(minidock, "a")
    added = set(os.listdir(minidock.root / "images/blobs/sha256")) - set(before)
    assert len(added) == 2, "only a manifest and a configuration are new"


def test_a_layer_that_exists_is_taken_from_the_cache_and_not_built(minidock, context) -> None:
    folder = context(LINES)
    minidock.build(folder, "-t", "story")
    progress = minidock.build(folder, "-t", "again")
    assert progress.count("CACHED") == 3
    assert layers_of(minidock, "again") == layers_of(minidock, "story")


def test_run_puts_one_writable_layer_on_top_of_the_read_only_ones(minidock, sleeper) -> None:
    sleeper("one", script="echo mine > /file")
    assert (folder_of(minidock, "one") / "upper/file").read_text() == "mine\n"
    root = next(line for line in minidock.out("exec", "one", "cat", "/proc/mounts").splitlines() if " / " in line)
    assert root.split()[2] == "overlay"
    assert root.count("upperdir=") == 1


def test_two_containers_share_the_read_only_layers(minidock, sleeper, layers: str) -> None:
    sleeper("first")
    sleeper("second")
    inodes = [minidock.out("exec", name, "stat", "-c", "%i", "/bin/busybox") for name in ("first", "second")]
    assert inodes[0] == inodes[1]
    if layers == "tree":
        assert any(path.stat().st_ino == int(inodes[0]) for path in (minidock.root / "layers").rglob("bin/busybox"))


def test_changing_a_file_of_the_image_copies_it_up(minidock, context, sleeper) -> None:
    minidock.build(context("FROM busybox\nRUN echo old > /file\n"), "-t", "image")
    sleeper("changer", image="image", script="echo new > /file")
    sleeper("other", image="image")
    assert minidock.out("exec", "changer", "cat", "/file") == "new"
    assert minidock.out("exec", "other", "cat", "/file") == "old"
    assert minidock.out("run", "--rm", "--network", "none", "image", "cat", "/file") == "old"


def test_when_the_container_exits_the_writable_layer_is_gone(minidock) -> None:
    minidock("run", "--name", "one", "--network", "none", "busybox", "sh", "-c", "echo x > /changed")
    assert not (folder_of(minidock, "one") / "upper").exists()
    assert minidock.inspect("one")["State"]["Status"] == "exited"


def test_when_the_container_crashes_the_writable_layer_is_gone(minidock, sleeper) -> None:
    sleeper("one", script="echo x > /changed")
    upper = folder_of(minidock, "one") / "upper"
    assert (upper / "changed").exists()
    os.kill(minidock.inspect("one")["State"]["Pid"], signal.SIGKILL)
    assert minidock.out("wait", "one") == "137"
    assert not upper.exists()


def test_v_creates_the_volume_and_its_files_outlive_the_container(minidock) -> None:
    script = "echo kept > /var/lib/python/file"
    minidock("run", "--rm", "--network", "none", "-v", "volume_1:/var/lib/python", "busybox", "sh", "-c", script)
    file = minidock.root / "volumes/volume_1/_data/file"
    assert file.read_text() == "kept\n"
    again = ("run", "--rm", "--network", "none", "-v", "volume_1:/var/lib/python", "busybox")
    assert minidock.out(*again, "cat", "/var/lib/python/file") == "kept"


def test_mount_bind_mounts_another_location(minidock, tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    mount = f"type=bind,source={tmp_path}/path,target=/x"
    minidock("run", "--rm", "--network", "none", "--mount", mount, "busybox", "sh", "-c", "echo y > /x/file")
    assert (tmp_path / "path/file").read_text() == "y\n"


def test_mount_volume_works_for_an_existing_volume(minidock) -> None:
    minidock("volume", "create", "volume_1")
    mount = "type=volume,source=volume_1,target=/x"
    minidock("run", "--rm", "--network", "none", "--mount", mount, "busybox", "sh", "-c", "echo y > /x/file")
    assert (minidock.root / "volumes/volume_1/_data/file").read_text() == "y\n"


def test_v_creates_a_missing_volume_and_mount_does_not(minidock) -> None:
    mount = "type=volume,source=absent,target=/x"
    refused = minidock("run", "--rm", "--mount", mount, "busybox", "true", status=125)
    assert 'volume "absent" does not exist' in refused.stderr
    assert "minidock volume create absent" in refused.stderr
    assert minidock.out("volume", "ls", "-q") == ""
    assert minidock.out("ps", "-aq") == ""
    minidock("run", "--rm", "--network", "none", "-v", "absent:/x", "busybox", "true")
    assert minidock.out("volume", "ls", "-q") == "absent"


def test_volume_create_then_volume_ls_shows_it(minidock) -> None:
    assert minidock.out("volume", "create", "volume_2") == "volume_2"
    table = minidock.out("volume", "ls").splitlines()
    assert table[0].split() == ["DRIVER", "VOLUME", "NAME"]
    assert table[1].split() == ["local", "volume_2"]


def test_info_shows_driver_containers_images_and_host(minidock, sleeper) -> None:
    sleeper("running")
    sleeper("paused")
    minidock("pause", "paused")
    minidock("create", "--name", "stopped", "busybox", "true")
    text = minidock.out("info")
    fields = dict(line.strip().partition(": ")[::2] for line in text.splitlines() if ": " in line)
    assert fields["Storage Driver"] == "overlay2"
    assert (fields["Containers"], fields["Running"], fields["Paused"], fields["Stopped"]) == ("3", "1", "1", "1")
    assert fields["Images"] == "1"
    assert fields["Kernel Version"] == os.uname().release
    assert fields["Architecture"] == os.uname().machine
    assert int(fields["CPUs"]) == len(os.sched_getaffinity(0))
    value = json.loads(minidock.out("info", "-f", "json"))
    assert value["Driver"] == "overlay2"
    assert (value["ContainersRunning"], value["ContainersPaused"], value["ContainersStopped"]) == (1, 1, 1)
    with contextlib.suppress(FileNotFoundError):
        assert value["Name"] == os.uname().nodename
