"""What overlayfs leaves in an upper directory, and what of it a layer keeps."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from typing import Any

import pytest

from minidock.drivers import trees

T0 = 1_500_000_000


@pytest.fixture
def stack(lab: Any) -> Any:
    if lab.name != "overlay2":
        pytest.skip("only overlay2 has an upper directory")
    made = lab.stack()

    def base(root: str) -> None:
        os.mkdir(f"{root}/d")
        for name in ("d/file", "plain"):
            with open(f"{root}/{name}", "w") as file:
                file.write("x")

    made.edit(base)
    return made


def _names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getnames()


def test_whiteouts_without_a_victim_are_dropped(stack: Any) -> None:
    writable = stack.prepared()
    upper = f"{writable}/upper"
    os.mkdir(f"{upper}/new")
    for path in ("never", "new/never"):
        os.mknod(f"{upper}/{path}", stat.S_IFCHR, 0)
    packed, tar = stack.pack(writable)
    assert _names(tar) == [".", "new"]
    assert packed.deletions == 0
    assert packed.sealed or os.listdir(f"{upper}/new") == []


def test_an_opaque_mark_above_nothing_is_dropped(stack: Any) -> None:
    writable = stack.prepared()
    upper = f"{writable}/upper"
    for name in ("new", "plain", "d"):
        os.makedirs(f"{upper}/{name}/inner")
        for path in (name, f"{name}/inner"):
            os.setxattr(f"{upper}/{path}", "trusted.overlay.opaque", b"y")
    packed, tar = stack.pack(writable)
    assert [name for name in _names(tar) if name.endswith("opq")] == ["d/.wh..wh..opq"]
    assert packed.sealed or [path for path, entry in stack_marks(upper).items() if entry] == ["d"]


def stack_marks(upper: str) -> dict[str, list[str]]:
    return {
        path: os.listxattr(f"{upper}/{path}")
        for path in ("", "d", "d/inner", "new", "new/inner", "plain", "plain/inner")
    }


def test_overlayfs_own_attributes_go(stack: Any) -> None:
    writable = stack.prepared()
    with stack.mounted(writable) as root:
        os.chmod(f"{root}/d/file", 0o600)
        os.symlink("x", f"{root}/s")
    upper = f"{writable}/upper"
    assert any(
        n.startswith("trusted.overlay.") for n in (*os.listxattr(f"{upper}/d/file"), *os.listxattr(f"{upper}/d"))
    )
    os.setxattr(f"{upper}/s", "trusted.overlay.origin", b"x", follow_symlinks=False)
    packed, tar = stack.pack(writable)
    assert b"trusted.overlay" not in tar
    for path in (upper, f"{upper}/d", f"{upper}/d/file", f"{upper}/s"):
        assert packed.sealed or os.listxattr(path, follow_symlinks=False) == []


def test_without_omission_marks_stay(stack: Any) -> None:
    writable = stack.prepared()
    upper = f"{writable}/upper"
    os.mknod(f"{upper}/never", stat.S_IFCHR, 0)
    os.mkdir(f"{upper}/new")
    os.setxattr(f"{upper}/new", "trusted.overlay.opaque", b"y")
    packed, tar = stack.pack(writable, omit=False)
    assert _names(tar) == [".", ".wh.never", "new", "new/.wh..wh..opq"]
    assert packed.deletions == 1


def test_reading_does_not_touch_access_times(stack: Any) -> None:
    writable = stack.prepared()
    path = f"{writable}/upper/f"
    with open(path, "w") as file:
        file.write("x")
    os.utime(path, (1, T0))
    stack.pack(writable)
    assert os.stat(path).st_atime == 1


def test_trees_as_copies(stack: Any, tmp_path: Any) -> None:
    """Links, holes, devices, times and attributes survive a copy; sockets are not copied."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d" / "e").mkdir(parents=True)
    target.mkdir()
    with open(source / "d" / "holes", "wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"data")
    os.link(source / "d" / "holes", source / "same")
    os.mkfifo(source / "pipe")
    os.chmod(source / "pipe", 0o622)
    os.symlink("d", source / "link")
    os.setxattr(source / "d", "user.k", b"v")
    os.setxattr(source / "link", "trusted.k", b"v", follow_symlinks=False)
    os.chown(source / "link", 7, 8, follow_symlinks=False)
    for path in ("pipe", "d/holes", "d/e", "d"):
        os.utime(source / path, (T0, T0))
    with trees.opened(str(source)) as source_fd, trees.opened(str(target)) as target_fd:
        trees.copy(source_fd, target_fd)
        assert trees.disk_usage(target_fd) < 1 << 20
        assert trees.try_open_directory(target_fd, "link") == -1
        assert trees.try_open_directory(target_fd, "nothing") == -1
    assert os.stat(target / "same").st_ino == os.stat(target / "d" / "holes").st_ino
    assert os.stat(target / "d").st_mtime == T0
    assert os.getxattr(target / "link", "trusted.k", follow_symlinks=False) == b"v"
    assert os.lstat(target / "link").st_uid == 7
    assert os.stat(target / "pipe").st_mode & 0o777 == 0o622
