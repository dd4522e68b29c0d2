"""The acceptance cases of mounts and volumes, numbered as the specification numbers them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

RUN = ("run", "--rm", "--network", "none")


def volume(minidock, name: str) -> Path:
    return minidock.root / "volumes" / name / "_data"


def volumes(minidock) -> list[str]:
    return minidock.out("volume", "ls", "-q").split()


def sh(minidock, script: str, *flags: str | Path, image: str = "busybox", status: int = 0) -> str:
    done = minidock(*RUN, *flags, image, "sh", "-c", script, status=status)
    return done.stdout.rstrip("\n") if status == 0 else done.stderr


def test_01_v_creates_a_volume_that_survives_rm(minidock) -> None:
    sh(minidock, "echo x > /d/f", "-v", "new:/d")
    assert volumes(minidock) == ["new"]
    assert (volume(minidock, "new") / "f").read_text() == "x\n"


@pytest.mark.parametrize("kind", ["type=volume,", ""])
def test_02_mount_of_a_missing_volume_is_refused_before_anything_happens(minidock, kind: str) -> None:
    refused = minidock("run", "--mount", f"{kind}src=absent,dst=/d", "busybox", "true", status=125)
    assert refused.stderr.startswith('minidock: volume "absent" does not exist')
    assert "--mount does not create volumes" in refused.stderr
    assert volumes(minidock) == []
    assert minidock.out("ps", "-aq") == ""
    missing_image = minidock("run", "--mount", f"{kind}src=absent,dst=/d", "no-such-image", "true", status=125)
    assert "absent" in missing_image.stderr, "the volume is checked before an image would be pulled"
    minidock("volume", "create", "absent")
    sh(minidock, "touch /d/f", "--mount", f"{kind}src=absent,dst=/d")
    assert (volume(minidock, "absent") / "f").exists()


def test_03_missing_host_paths(minidock, tmp_path: Path) -> None:
    missing = tmp_path / "nohost"
    refused = minidock("run", "--mount", f"type=bind,src={missing},dst=/d", "busybox", "true", status=125)
    assert f"bind source path does not exist: {missing}" in refused.stderr
    assert not missing.exists()
    sh(minidock, "true", "-v", f"{missing}:/d")
    assert missing.is_dir()
    assert missing.stat().st_uid == 0
    other = tmp_path / "created"
    sh(minidock, "true", "--mount", f"type=bind,src={other},dst=/d,bind-create-src")
    assert other.is_dir()


def test_04_which_text_is_a_path_and_which_a_volume(minidock, tmp_path: Path) -> None:
    minidock(*RUN, "-v", "./rel:/d", "busybox", "touch", "/d/f", cwd=tmp_path)
    assert (tmp_path / "rel/f").exists()
    minidock(*RUN, "-v", "rel:/d", "busybox", "touch", "/d/g", cwd=tmp_path)
    assert (volume(minidock, "rel") / "g").exists()
    refused = minidock(*RUN, "-v", "rel/x:/d", "busybox", "true", status=125, cwd=tmp_path)
    assert "rel/x" in refused.stderr
    assert "absolute path" in refused.stderr
    assert "invalid mode" in sh(minidock, "true", "-v", "rel:/d:rw,ro", status=125)


def test_05_copy_up(minidock, context) -> None:
    script = """
        mkdir /d && echo one > /d/file && ln -s file /d/link && mkdir /d/sub && chmod 750 /d/sub
        chown 7:8 /d/file /d && chmod 2775 /d
    """
    lines = " && ".join(line.strip() for line in script.strip().splitlines())
    minidock.build(context(f"FROM busybox\nRUN {lines}\n"), "-t", "filled")
    minidock.build(context("FROM busybox\nRUN mkdir /d && echo two > /d/other\n"), "-t", "second")
    sh(minidock, "true", "-v", "data:/d", image="filled")
    data = volume(minidock, "data")
    assert (data / "file").read_text() == "one\n"
    assert ((data / "file").stat().st_uid, (data / "file").stat().st_gid) == (7, 8)
    assert os.readlink(data / "link") == "file"
    assert (data / "sub").stat().st_mode & 0o7777 == 0o750
    assert (data.stat().st_uid, data.stat().st_gid, data.stat().st_mode & 0o7777) == (7, 8, 0o2775)
    sh(minidock, "true", "-v", "data:/d", image="second")
    assert not (data / "other").exists()
    sh(minidock, "true", "-v", "plain:/d:nocopy", image="filled")
    assert list(volume(minidock, "plain").iterdir()) == []
    sh(minidock, "true", "-v", "readonly:/d:ro", image="filled")
    assert (volume(minidock, "readonly") / "file").exists()


def test_06_read_only_holds_in_submounts_too(minidock, tmp_path: Path) -> None:
    (tmp_path / "outer/inner").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "outer/inner"], check=True)
    try:
        for path in ("/m/f", "/m/inner/f"):
            assert "Read-only file system" in sh(
                minidock, f"echo x > {path}", "-v", f"{tmp_path}/outer:/m:ro", status=1
            )
    finally:
        subprocess.run(["umount", tmp_path / "outer/inner"], check=True)


def test_07_volume_subpath(minidock) -> None:
    minidock("volume", "create", "data")
    (volume(minidock, "data") / "sub").mkdir()
    (volume(minidock, "data") / "sub/file").write_text("deep\n")
    mount = "type=volume,src=data,dst=/d,volume-subpath="
    assert sh(minidock, "cat /d/file", "--mount", f"{mount}sub") == "deep"
    assert "../x" in sh(minidock, "true", "--mount", f"{mount}../x", status=125)
    assert "missing" in sh(minidock, "true", "--mount", f"{mount}missing", status=125)


def test_08_volumes_of_the_image(minidock, context) -> None:
    minidock.build(context("FROM busybox\nVOLUME /data\n"), "-t", "withvolume")
    sh(minidock, "touch /data/f", image="withvolume")
    assert volumes(minidock) == [], "--rm removes the anonymous volume"
    minidock("run", "--name", "kept", "--network", "none", "withvolume", "touch", "/data/f")
    names = volumes(minidock)
    assert len(names) == 1
    assert len(names[0]) == 64
    minidock("volume", "prune", "-f")
    assert volumes(minidock) == names, "a container at rest still needs it"
    minidock("rm", "kept")
    assert "Total reclaimed space" in minidock.out("volume", "prune", "-f")
    assert volumes(minidock) == []


def test_08b_a_named_volume_takes_the_place_of_the_images(minidock, context) -> None:
    minidock.build(context("FROM busybox\nVOLUME /data\n"), "-t", "withvolume")
    sh(minidock, "touch /data/f", "-v", "mine:/data", image="withvolume")
    assert volumes(minidock) == ["mine"]


def test_09_volumes_from_another_container(minidock, context, tmp_path: Path) -> None:
    minidock.build(context("FROM busybox\nVOLUME /anonymous\nRUN mkdir /d && echo image > /d/image\n"), "-t", "three")
    host = f"{tmp_path}:/h"
    minidock(
        "run", "--name", "first", "--network", "none", "-v", "data:/d", "-v", host, "three", "touch", "/anonymous/f"
    )
    assert sh(minidock, "cat /d/image; ls /anonymous", "--volumes-from", "first:ro") == "image\nf"
    assert "Read-only file system" in sh(minidock, "touch /h/x", "--volumes-from", "first:ro", status=1)
    sh(minidock, "touch /h/x /d/y", "--volumes-from", "first")
    assert (tmp_path / "x").exists()
    assert sh(minidock, "ls /d", "--volumes-from", "first", "-v", "own:/d") == "", "the flag's own mount wins"
    assert "invalid mode" in sh(minidock, "true", "--volumes-from", "first:z", status=125)
    assert "no such container" in sh(minidock, "true", "--volumes-from", "nobody", status=125)

    minidock("create", "--name", "second", "--volumes-from", "first", "busybox", "ls", "/anonymous")
    minidock("rm", "-v", "first")
    assert "data" in volumes(minidock)
    assert len(volumes(minidock)) == 3, "the second container still refers to the anonymous volume"
    assert minidock("start", "-a", "second").stdout == "f\n"
    minidock("rm", "-v", "second")
    assert len([name for name in volumes(minidock) if len(name) == 64]) == 1, "it is nobody's, and left for prune"
    minidock("volume", "prune", "-f")
    assert sorted(volumes(minidock)) == ["data", "own"]


@pytest.mark.parametrize("order", [("-v", "aa:/x", "-v", "bb:/x/y"), ("-v", "bb:/x/y", "-v", "aa:/x")])
def test_10_deeper_mounts_come_later_whatever_the_order(minidock, order: tuple[str, ...]) -> None:
    sh(minidock, "touch /x/outer /x/y/inner", *order)
    assert sorted(os.listdir(volume(minidock, "aa"))) == ["outer", "y"]
    assert os.listdir(volume(minidock, "bb")) == ["inner"]


def test_11_a_link_of_the_image_never_leads_to_the_host(minidock, context) -> None:
    minidock.build(context("FROM busybox\nRUN ln -s /etc /d\n"), "-t", "linked")
    before = sorted(os.listdir("/etc"))
    assert sh(minidock, "touch /etc/marker-of-minidock; ls /d", "-v", "data:/d", image="linked")
    assert (volume(minidock, "data") / "marker-of-minidock").exists()
    assert sorted(os.listdir("/etc")) == before


def test_12_tmpfs(minidock) -> None:
    text = sh(minidock, "grep ' /t ' /proc/mounts; stat -c %a /t", "--tmpfs", "/t:size=1m,mode=0700")
    assert "size=1024k" in text
    assert text.endswith("700")
    assert {"noexec", "nosuid", "nodev"} <= set(text.split()[3].split(","))
    mount = "type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=1700"
    text = sh(minidock, "grep ' /t ' /proc/mounts; stat -c %a /t", "--mount", mount)
    assert "size=2048k" in text
    assert text.endswith("1700")
    assert volumes(minidock) == []
    fill = "dd if=/dev/zero of=/t/f bs=1k count=3000"
    assert "No space left" in sh(minidock, fill, "--tmpfs", "/t:size=1m", status=1)


def test_13_a_volume_that_a_container_refers_to_is_not_removed(minidock) -> None:
    minidock("create", "--name", "user", "-v", "data:/d", "busybox", "true")
    refused = minidock("volume", "rm", "data", status=1)
    assert 'volume "data" is in use' in refused.stderr
    assert minidock.inspect("user")["Id"][:12] in refused.stderr
    minidock("rm", "user")
    assert minidock.out("volume", "rm", "data") == "data"
    assert minidock("volume", "rm", "data", status=1).stderr.startswith("minidock:")
    minidock("volume", "rm", "-f", "data")


def test_14_two_first_uses_at_once_copy_up_once(minidock, context) -> None:
    lines = "mkdir /d && cd /d && for i in $(seq 300); do echo $i > f$i; done"
    minidock.build(context(f"FROM busybox\nRUN {lines}\n"), "-t", "many")
    script = "ls /d | wc -l"
    started = [minidock.popen(*RUN, "-v", "shared:/d", "many", "sh", "-c", script) for _ in range(4)]
    assert [process.communicate(timeout=60)[0].strip() for process in started] == [b"300"] * 4
    assert len(os.listdir(volume(minidock, "shared"))) == 300


def test_15_a_single_file_of_the_host(minidock, tmp_path: Path) -> None:
    """A file that is replaced by rename on the host is a new file, which the container does not see."""
    file = tmp_path / "file"
    file.write_text("old\n")
    minidock("run", "-d", "--name", "reader", "--network", "none", "-v", f"{file}:/f", "busybox", "sleep", "1000")
    assert minidock.out("exec", "reader", "cat", "/f") == "old"
    (tmp_path / "new").write_text("new\n")
    (tmp_path / "new").rename(file)
    assert minidock.out("exec", "reader", "cat", "/f") == "old"


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2])
def test_16_killed_on_the_way_nothing_half_populated_counts_as_populated(minidock, context, delay: float) -> None:
    lines = "mkdir /d && cd /d && for i in $(seq 400); do echo $i > f$i; done"
    minidock.build(context(f"FROM busybox\nRUN {lines}\n"), "-t", "many")
    process = minidock.popen(*RUN, "-v", "data:/d", "many", "sleep", "0.1")
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert sh(minidock, "ls /d | wc -l", "-v", "data:/d", image="many") == "400"
    for _ in range(100):
        if minidock.out("ps", "-aq") == "":
            break
        time.sleep(0.05)
    assert minidock.out("ps", "-aq") == ""


def test_duplicate_mount_points(minidock) -> None:
    minidock("volume", "create", "aa")
    text = sh(minidock, "true", "-v", "aa:/d", "--mount", "type=volume,src=aa,dst=/d", status=125)
    assert "duplicate mount point" in text.lower()
    assert "/d" in text


def test_inspect_shows_the_mounts(minidock, tmp_path: Path) -> None:
    minidock("create", "--name", "one", "-v", "data:/d:ro", "-v", f"{tmp_path}:/h", "busybox", "true")
    mounts = {mount["Destination"]: mount for mount in minidock.inspect("one")["Mounts"]}
    assert (mounts["/d"]["Type"], mounts["/d"]["Name"], mounts["/d"]["RW"]) == ("volume", "data", False)
    assert (mounts["/h"]["Type"], mounts["/h"]["Source"], mounts["/h"]["RW"]) == ("bind", str(tmp_path), True)


def test_volume_inspect(minidock) -> None:
    minidock("volume", "create", "--label", "team=blue", "data")
    value = json.loads(minidock.out("volume", "inspect", "data"))[0]
    assert value["Name"] == "data"
    assert value["Mountpoint"] == str(volume(minidock, "data"))
    assert value["Labels"] == {"team": "blue"}
    assert minidock("volume", "inspect", "absent", status=1).stderr
