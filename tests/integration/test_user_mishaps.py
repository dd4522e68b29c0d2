"""What goes wrong around a user: closed streams, a file system that is read-only or full, files that were damaged."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def mounted(target: Path, *arguments: str) -> Iterator[Path]:
    subprocess.run(["mount", *arguments, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


class TestReadOnly:
    @pytest.fixture
    def read_only(self, minidock: Any, tmp_path: Path) -> Iterator[str]:
        """The data root's path on a read-only mount; it holds one container, ``box``."""
        minidock("create", "--name", "box", "busybox", "true")
        target = tmp_path / "ro"
        target.mkdir()
        with mounted(target, "--bind", str(minidock.root)):
            subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
            yield str(target)

    def test_what_only_looks_works(self, minidock: Any, read_only: str) -> None:
        root = ("--root", read_only)
        assert minidock.out(*root, "images", "--format", "{{.Repository}}") == "busybox"
        assert minidock.out(*root, "ps", "-a", "--format", "{{.Names}} {{.Status}}") == "box Created"
        assert minidock.out(*root, "info", "-f", "{{.Containers}} {{.Images}}") == "1 1"
        assert minidock(*root, "history", "busybox").returncode == 0

    @pytest.mark.parametrize(
        ("line", "status"),
        [
            (("run", "--rm", "busybox", "true"), 125),
            (("volume", "create", "data"), 1),
            (("rmi", "busybox"), 1),
            (("rm", "box"), 1),
            (("tag", "busybox", "other"), 1),
        ],
    )
    def test_what_writes_says_why_not_and_what_to_do(
        self, minidock: Any, read_only: str, line: tuple[str, ...], status: int
    ) -> None:
        done = minidock("--root", read_only, *line, status=status)
        assert "read-only file system" in done.stderr.lower()
        assert "choose another folder with --root DIR or MINIDOCK_ROOT" in done.stderr
        assert "unexpected" not in done.stderr


class TestFullDisk:
    def test_a_base_image_that_finds_no_room_is_not_there(self, minidock: Any, tmp_path: Path) -> None:
        target = tmp_path / "small"
        target.mkdir()
        with mounted(target, "-t", "tmpfs", "-o", "size=5m", "tmpfs"):
            root = ("--root", str(target / "root"))
            done = minidock(*root, "image", "bootstrap", "busybox", status=1)
            assert "No space left on device\nfree some space" in done.stderr
            assert minidock.out(*root, "images", "-q") == ""
            assert os.listdir(target / "root/tmp") == []

    def test_info_tells_what_it_can(self, minidock: Any, tmp_path: Path) -> None:
        target = tmp_path / "small"
        target.mkdir()
        with mounted(target, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
            root = ("--root", str(target / "root"))
            assert minidock.out(*root, "images", "-q") == ""
            subprocess.run(["dd", "if=/dev/zero", f"of={target}/fill", "bs=4k"], check=False, capture_output=True)
            assert minidock.out(*root, "info", "-f", "{{.Images}}") == "0"
            done = minidock(*root, "volume", "create", "data", status=1)
            assert "no space left" in done.stderr.lower()
            assert "free some space" in done.stderr
            assert minidock.out(*root, "volume", "ls", "-q") == ""


class TestDamage:
    @pytest.mark.parametrize("name", ["container.json", "state.json"])
    @pytest.mark.parametrize("content", [None, b"", b"{", b"[]"])
    def test_a_damaged_container_is_named_and_can_be_removed(
        self, minidock: Any, name: str, content: bytes | None
    ) -> None:
        damaged = minidock.out("create", "--name", "damaged", "busybox", "true")
        sound = minidock.out("create", "busybox", "true")
        path = minidock.root / "containers" / damaged / name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        done = minidock("ps", "-aq", "--no-trunc")
        assert done.stdout == f"{sound}\n"
        assert f"warning: container {damaged[:12]} is damaged: " in done.stderr
        assert f"remove it: minidock rm -f {damaged[:12]}\n" in done.stderr
        minidock("inspect", "--type", "container", damaged, status=1)
        assert minidock.out("rm", "-f", "damaged") == "damaged"
        assert not path.parent.exists()
        assert minidock("ps", "-a").stderr == ""

    def test_a_running_container_with_a_damaged_state_dies_by_force(self, minidock: Any) -> None:
        container = minidock.out("run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "1000")
        pid = int(minidock.out("inspect", "-f", "{{.State.Pid}}", "web"))
        (minidock.root / "containers" / container / "state.json").write_text("x")
        assert minidock.out("rm", "-f", "web") == "web"
        assert not os.path.exists(f"/proc/{pid}")

    def test_a_damaged_image_is_listed_and_named(self, minidock: Any) -> None:
        image = minidock.out("inspect", "-f", "{{.Id}}", "busybox")
        (minidock.root / "images/blobs/sha256" / image.removeprefix("sha256:")).unlink()
        done = minidock("images", "-q")
        assert done.stdout == f"{image[7:19]}\n"
        assert "warning: image busybox:latest is damaged: the blob " in done.stderr
        assert "is missing; remove it: minidock rmi -f busybox:latest\n" in done.stderr
        done = minidock("run", "--rm", "busybox", "true", status=125)
        assert "the image busybox is damaged: " in done.stderr
        minidock("rmi", "-f", "busybox:latest")
        assert minidock("images", "-q").stdout == ""


class TestStreams:
    @pytest.mark.parametrize("fd", [0, 1, 2])
    def test_a_closed_stream_harms_nothing(self, minidock: Any, fd: int) -> None:
        line = f'exec "$@" {fd}>&-'
        words = [minidock.command, "run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo out; echo err >&2"]
        done = subprocess.run(
            ["sh", "-c", line, "sh", *words], capture_output=True, env=minidock.environment, text=True, timeout=60
        )
        assert done.returncode == 0
        assert done.stdout == ("" if fd == 1 else "out\n")
        assert done.stderr == ("" if fd == 2 else "err\n")

    def test_a_reader_that_has_enough(self, minidock: Any) -> None:
        line = f"{minidock.command} images --no-trunc | head -1; {minidock.command} info | head -1"
        done = subprocess.run(["sh", "-c", line], capture_output=True, env=minidock.environment, text=True, timeout=60)
        assert done.stdout.splitlines()[0].startswith("REPOSITORY")
        assert "Traceback" not in done.stderr
        assert "pipe" not in done.stderr


def test_an_unreadable_tarball_is_named(minidock: Any, tmp_path: Path) -> None:
    path = tmp_path / "no.tar"
    path.write_bytes(b"x" * 2000)
    done = minidock("import", path, "x", status=1)
    assert done.stderr.startswith(f"minidock: cannot import {path}: ")
    assert "\ngive a tarball, plain or compressed with gzip, bzip2, xz or zstandard\n" in done.stderr
    assert minidock.out("images", "-q", "x") == ""


def test_no_room_asked_for_in_dev_shm_is_the_default(minidock: Any) -> None:
    line = ("run", "--rm", "--network", "none", "--shm-size", "0", "busybox", "df", "-k", "/dev/shm")
    assert minidock.out(*line).splitlines()[1].split()[1] == "65536"
