from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from minidock.engine import apt_sources, bootstrap, busybox, debian
from minidock.engine.engine import Engine
from minidock.engine.parts import open_rootfs
from minidock.errors import HostError, UsageError
from minidock.store.images import Images

needs_busybox = pytest.mark.skipif(
    not any(os.path.isfile(path) and busybox.is_static(path) for path in busybox.PATHS),
    reason="no static busybox is installed (apt install busybox-static)",
)


@needs_busybox
def test_busybox_is_the_same_image_every_time(engine: Engine, tmp_path: Path) -> None:
    image = bootstrap.bootstrap(engine, "busybox")
    assert image.names == ("docker.io/library/busybox:latest",)
    assert image.config.config["Cmd"] == ["sh"]
    assert image.config.config["Env"] == [bootstrap.PATH]
    assert bootstrap.bootstrap(engine, "busybox").id == image.id
    assert bootstrap.bootstrap(engine, "busybox", name="other:v1").id == image.id
    elsewhere = Engine(str(tmp_path / "elsewhere"), layers="tree")
    try:
        assert bootstrap.bootstrap(elsewhere, "busybox").id == image.id
    finally:
        shutil.rmtree(elsewhere.root.run, ignore_errors=True)
    assert os.listdir(engine.root.tmp) == []


@needs_busybox
def test_busybox_is_unpacked_and_has_a_shell(engine: Engine) -> None:
    image = bootstrap.bootstrap(engine, "busybox")
    with open_rootfs(engine).open_root(image.config.diff_ids, None) as fd:
        shell, program = os.stat("bin/sh", dir_fd=fd), os.stat("bin/busybox", dir_fd=fd)
        assert shell.st_ino == program.st_ino
        assert shell.st_mode & 0o111
        assert os.stat("tmp", dir_fd=fd).st_mode & 0o7777 == 0o1777
        assert os.stat("root", dir_fd=fd).st_mode & 0o7777 == 0o700


@needs_busybox
def test_source_date_epoch_is_every_files_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    image = bootstrap.bootstrap(engine, "busybox")
    assert image.config.created == "2023-11-14T22:13:20Z"
    with open_rootfs(engine).open_root(image.config.diff_ids, None) as fd:
        assert os.stat("bin/sh", dir_fd=fd).st_mtime == 1_700_000_000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        bootstrap.bootstrap(engine, "busybox")


@pytest.mark.parametrize("what", ["alpine", "busybox:1", "debian:", "debian:../x", "debian:--help", ""])
def test_other_images_are_refused(engine: Engine, what: str) -> None:
    with pytest.raises(UsageError, match="bootstrap"):
        bootstrap.bootstrap(engine, what)


@pytest.fixture
def fake_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An mmdebstrap that notes its arguments and packs a small tree; the host is a Debian with one mirror."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "hostname").write_text("host")
    (tree / "etc" / "debian_version").write_text("12\n")
    calls = tmp_path / "calls"
    program = tmp_path / "mmdebstrap"
    program.write_text(
        f'#!/bin/sh\nfor word; do echo "$word"; done >> {calls}\necho "I: working" >&2\n'
        f'tar -C {tree} --sort=name --mtime=@5 --owner=0 --group=0 -cf "$4" .\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(debian, "find_mmdebstrap", lambda: str(program))
    release = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr(apt_sources, "host_release", lambda: release)
    monkeypatch.setattr(apt_sources, "read_sources", lambda: [apt_sources.Source("http://m", "bookworm", ("main",))])
    monkeypatch.setattr(apt_sources, "archive_time", lambda _: 1_700_000_000)
    return calls


def test_debian_is_the_hosts_suite_from_the_hosts_sources(
    engine: Engine, fake_debian: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = bootstrap.bootstrap(engine, "debian")
    assert image.names == ("docker.io/library/debian:bookworm", "docker.io/library/debian:latest")
    assert image.config.config["Cmd"] == ["bash"]
    assert image.config.created == "2023-11-14T22:13:20Z"
    words = fake_debian.read_text().splitlines()
    assert words[:3] == ["--variant=minbase", "--format=tar", "bookworm"]
    assert words[4:] == ["deb http://m bookworm main"]
    assert "minidock: mmdebstrap: working" in capfd.readouterr().err
    with open_rootfs(engine).open_root(image.config.diff_ids, None) as fd:
        assert os.stat("dev", dir_fd=fd).st_nlink == 2
        assert os.stat("etc/debian_version", dir_fd=fd).st_size == 3
        with pytest.raises(FileNotFoundError):
            os.stat("etc/hostname", dir_fd=fd)


def test_a_debian_image_that_is_here_is_left_alone_unless_forced(
    engine: Engine, fake_debian: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = bootstrap.bootstrap(engine, "debian:bookworm", quiet=True)
    assert capfd.readouterr().err == ""
    assert image.names == ("docker.io/library/debian:bookworm",)
    again = bootstrap.bootstrap(engine, "debian")
    assert again.id == image.id
    assert f"the image debian:latest is here already: {image.id[7:19]}" in capfd.readouterr().err
    assert Images(engine.root).get("debian").id == image.id
    assert fake_debian.read_text().count("--variant") == 1
    assert bootstrap.bootstrap(engine, "debian", force=True).id == image.id
    assert fake_debian.read_text().count("--variant") == 2
    assert bootstrap.bootstrap(engine, "debian", name="mine", quiet=True).names[-1] == "docker.io/library/mine:latest"
    assert os.listdir(engine.root.tmp) == []


def test_on_another_host_debian_is_stable_from_its_own_mirror(
    engine: Engine, fake_debian: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt_sources, "host_release", lambda: {"ID": "fedora"})
    assert "docker.io/library/debian:stable" in bootstrap.bootstrap(engine, "debian").names
    words = fake_debian.read_text().splitlines()
    assert words[2] == "stable"
    assert len(words) == 4


def test_a_failing_mmdebstrap_leaves_nothing(engine: Engine, fake_debian: Path, tmp_path: Path) -> None:
    (tmp_path / "mmdebstrap").write_text("#!/bin/sh\necho half > $4\necho 'E: no network' >&2\nexit 1\n")
    with pytest.raises(HostError, match="could not make Debian sid: no network"):
        bootstrap.bootstrap(engine, "debian:sid")
    assert Images(engine.root).list() == []
    assert os.listdir(engine.root.tmp) == []


@needs_busybox
def test_the_image_says_where_it_comes_from(engine: Engine) -> None:
    image = bootstrap.bootstrap(engine, "busybox")
    assert [entry.created_by for entry in image.config.history] == ["minidock image bootstrap busybox", 'CMD ["sh"]']
    assert json.loads(image.config.encode())["architecture"] in {"amd64", "arm64"}
