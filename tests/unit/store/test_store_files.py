from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from minidock.errors import CorruptObjectError, StoreError
from minidock.store import files


def test_write_atomic_replaces_with_the_mode_asked_for(tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    files.write_atomic(path, b"one", sync=False)
    files.write_atomic(path, b"two", sync=True, mode=0o640)
    assert Path(path).read_bytes() == b"two"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert os.listdir(tmp_path) == ["f"]


def test_write_atomic_syncs_content_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("fdatasync", "rename", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _n=name, _r=real: (calls.append(_n), _r(*a))[1])
    files.write_atomic(str(tmp_path / "f"), b"x", sync=True)
    assert calls == ["fdatasync", "rename", "fsync"]
    calls.clear()
    files.write_atomic(str(tmp_path / "f"), b"x", sync=False)
    assert calls == ["rename"]


def test_a_temporary_file_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = os.fchmod, []

    def fchmod(fd: int, mode: int) -> None:
        real(fd, mode)
        if not swept:
            swept.extend(os.listdir(tmp_path))
            os.unlink(tmp_path / swept[0])

    monkeypatch.setattr(os, "fchmod", fchmod)
    fd, path = files.open_scratch(str(tmp_path))
    os.close(fd)
    assert os.listdir(tmp_path) == [os.path.basename(path)]
    assert swept != [os.path.basename(path)]

    def fail(fd: int, mode: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fchmod", fail)
    with pytest.raises(OSError, match="Input/output error"):
        files.open_scratch(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("call", ["write", "fdatasync", "rename", "fsync"])
def test_a_failing_write_names_the_path_and_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path, scratch = str(tmp_path / "f"), tmp_path / "scratch"
    scratch.mkdir()
    files.write_atomic(path, b"old", sync=False)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        files.write_atomic(path, b"new", sync=True, scratch=str(scratch))
    assert path in caught.value.message
    assert caught.value.hint
    assert os.listdir(scratch) == []
    assert Path(path).read_bytes() == (b"new" if call == "fsync" else b"old")


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    files.write_atomic(str(tmp_path / "f"), b"0123456789", sync=False)
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_json_is_a_line_for_each_member(tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    value = {"a": [1, {"b": "ü"}], "c": None, "d": []}
    files.write_json(path, value, sync=False)
    assert Path(path).read_text() == '{\n"a": [1, {"b": "ü"}],\n"c": null,\n"d": []\n}\n'
    assert files.read_json(path) == value
    files.write_json(path, value, sync=False, lists=True)
    assert Path(path).read_text().count("\n") == 8
    assert files.read_json(path) == value


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 200_000, b"{}" + b" " * 100])
def test_damaged_json_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(data)
    limit = 50 if data.startswith(b"{}") else files.MAX_JSON
    with pytest.raises(CorruptObjectError, match="/f "):
        files.read_json(str(path), limit=limit)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name, said in (("fifo", "not a regular file"), ("link", "symbolic link"), ("", "not a regular file")):
        with pytest.raises(CorruptObjectError, match=said):
            files.read_file(str(tmp_path / name), limit=10)
    with pytest.raises(FileNotFoundError):
        files.read_file(str(tmp_path / "absent"), limit=10)


def test_remove_tree_follows_no_link_and_leaves_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_text("")
    (tree / "a" / "link").symlink_to(outside)
    os.mkfifo(tree / "fifo")
    files.remove_tree(str(tree))
    assert not tree.exists()
    assert (outside / "kept").exists()


def test_remove_tree_of_a_file_a_link_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    for name in ("file", "link", "absent"):
        files.remove_tree(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["target"]


def test_a_tree_of_any_depth_is_removed_with_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d" * 100, dir_fd=fd)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    highest = 0
    real = os.open

    def watched(*args: object, **kwargs: object) -> int:
        nonlocal highest
        got = real(*args, **kwargs)  # type: ignore[arg-type]
        highest = max(highest, got)
        return got

    monkeypatch.setattr(os, "open", watched)
    files.remove_tree(str(tree))
    assert not tree.exists()
    assert highest < 200


def test_what_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "busy").write_text("")

    def fail(path: str, *, dir_fd: int | None = None) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(OSError, match="tree/a/busy"):
        files.remove_tree(str(tmp_path / "tree"))


def test_two_removers_of_one_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (tree / name).write_text("")
    real = os.scandir

    def meanwhile(path: object) -> object:
        listed = real(path)  # type: ignore[call-overload]
        monkeypatch.setattr(os, "scandir", real)
        return _after(listed, lambda: files.remove_tree(str(tree)))

    monkeypatch.setattr(os, "scandir", meanwhile)
    files.remove_tree(str(tree))
    assert not tree.exists()


class _after:  # noqa: N801
    def __init__(self, listed: object, act: object) -> None:
        self.listed, self.act = list(listed), act  # type: ignore[call-overload]

    def __enter__(self) -> list[object]:
        return self.listed

    def __exit__(self, *args: object) -> None:
        self.act()  # type: ignore[operator]


def test_json_keeps_bytes_of_the_host_that_are_no_text(tmp_path: Path) -> None:
    value = {"env": ["X=a\udcffb", "ü"], "name": "\udc80"}
    files.write_json(str(tmp_path / "f"), value, sync=False)
    assert files.read_json(str(tmp_path / "f")) == value
    assert "ü" not in (tmp_path / "f").read_text()
    files.write_json(str(tmp_path / "g"), {"name": "ü"}, sync=False)
    assert "ü" in (tmp_path / "g").read_text()
