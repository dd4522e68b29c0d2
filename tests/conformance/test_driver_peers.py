"""Other programs read our layers, and we read theirs: GNU tar, both ways, and umoci's and docker's kind of layer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from minidock.model.digest import digest_of

T0 = 1_500_000_000
_GNU = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--same-permissions"]


def _fill(root: str) -> None:
    os.makedirs(f"{root}/usr/lib/{'deep/' * 20}end")
    os.mkdir(f"{root}/tmp")
    os.chmod(f"{root}/tmp", 0o1777)
    for number, name in enumerate(("a", "usr/b", "usr/lib/" + "n" * 240, "usr/ünï", "usr/lib/su", "usr/\n new")):
        with open(f"{root}/{name}", "wb") as file:
            file.write(os.urandom(number * 700))
        os.chown(f"{root}/{name}", number * 1_000_000, number)
    os.chmod(f"{root}/usr/lib/su", 0o4711)
    os.link(f"{root}/a", f"{root}/usr/lib/hard")
    os.symlink("../a" * 60, f"{root}/usr/long-link")
    os.link(f"{root}/usr/long-link", f"{root}/usr/same-link", follow_symlinks=False)
    os.mkfifo(f"{root}/usr/pipe")
    os.mknod(f"{root}/usr/null", 0o20666, os.makedev(1, 3))
    os.mknod(f"{root}/usr/loop", 0o60660, os.makedev(7, 300))
    os.setxattr(f"{root}/usr/b", "user.comment", b"\0binary\n=")
    os.setxattr(f"{root}/usr/b", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(f"{root}/usr/lib", "trusted.mark", b"x")
    with open(f"{root}/usr/holes", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"data")
    for directory, names, files in os.walk(root, topdown=False):
        for name in (*names, *files):
            os.utime(f"{directory}/{name}", (T0, T0), follow_symlinks=False)
    os.utime(root, (T0, T0))


def test_gnu_tar_unpacks_what_we_pack(lab: Any, tmp_path: Path) -> None:
    stack = lab.stack()
    packed = stack.edit(_fill)
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [*_GNU, "-xf", "-", "-C", tmp_path / "out"], input=stack.tars[packed.diff_id], capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert lab.snapshot(str(tmp_path / "out")) == stack.view(marks=False)


def test_we_unpack_what_gnu_tar_packs(lab: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    _fill(str(source))
    expected = lab.snapshot(str(source))
    for options in (["--format=gnu", "--no-xattrs"], ["--format=pax"], ["--format=pax", "--sparse"]):
        command = [*_GNU, *options, "-C", source, "-cf", "-", "."]
        tar = subprocess.run(command, capture_output=True, check=True).stdout
        stack = lab.stack()
        stack.unpack(tar, digest_of(tar))
        view = stack.view(marks=False)
        if "--no-xattrs" in options:
            view, plain = _without_attributes(view), _without_attributes(expected)
        else:
            plain = expected
        assert view == plain


def _without_attributes(tree: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return {path: (*entry[:6], *entry[7:]) for path, entry in tree.items()}
