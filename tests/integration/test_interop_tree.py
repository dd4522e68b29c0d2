"""The store read by others: umoci unpacks the very tree that a container sees."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

DOCKERFILE = """\
FROM busybox
RUN mkdir -p /a/deep /gone /opaque && echo one > /a/one && echo two > /a/deep/two && echo x > /gone/file \\
 && echo old > /opaque/old && ln /a/one /a/hard && ln -s one /a/link && mkfifo /a/fifo && chmod 4755 /a/one
RUN rm -r /gone && rm /a/deep/two && rm -r /opaque && mkdir /opaque && echo new > /opaque/new
COPY --chown=7:8 tree /copied
RUN echo three >> /a/one && chown 5:6 /a/deep && mv /copied/sub /copied/moved
"""
GENERATED = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys"}

pytestmark = pytest.mark.skipif(not shutil.which("umoci"), reason="umoci is not installed: apt-get install umoci")


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that stat, readlink, xattrs and content can tell of a tree on one file system."""
    found: dict[str, tuple[Any, ...]] = {}
    device = (root / ".").stat().st_dev
    groups: dict[int, str] = {}
    for folder, folders, files in os.walk(root):
        for name in sorted([*folders, *files]):
            path = Path(folder) / name
            inside = "/" + str(path.relative_to(root))
            if inside in GENERATED:
                if name in folders:
                    folders.remove(name)
                continue
            status = path.lstat()
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISDIR(status.st_mode):
                assert status.st_dev == device, path
            first = groups.setdefault(status.st_ino, inside) if stat.S_ISREG(status.st_mode) else inside
            found[inside] = (status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime), content, first)
    return found


def test_umocis_tree_equals_the_containers(minidock, context, tmp_path: Path) -> None:
    folder = context(DOCKERFILE, {"tree/file": "content\n", "tree/sub/inner": "inner\n"})
    os.utime(folder / "tree/file", (1_000_000_000, 1_000_000_000.75))
    minidock.build(folder, "-t", "tree")
    image = f"{minidock.root}/images:docker.io/library/tree:latest"
    subprocess.run(["umoci", "unpack", "--image", image, tmp_path / "bundle"], check=True, capture_output=True)
    theirs = snapshot(tmp_path / "bundle/rootfs")
    minidock("run", "-d", "--name", "one", "--network", "none", "tree", "sleep", "1000")
    ours = snapshot(Path(f"/proc/{minidock.inspect('one')['State']['Pid']}/root"))
    assert set(ours) == set(theirs)
    assert {name: (value, theirs[name]) for name, value in ours.items() if value != theirs[name]} == {}
    assert "/gone" not in ours
    assert "/opaque/old" not in ours
    assert ours["/copied/file"][3] == 1_000_000_000


def test_skopeo_inspects_the_store_by_full_name(minidock) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed: apt-get install skopeo")
    image = f"oci:{minidock.root}/images:docker.io/library/busybox:latest"
    done = subprocess.run(["skopeo", "inspect", "--config", image], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["config"]["Cmd"] == ["sh"]
