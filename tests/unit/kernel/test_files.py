"""Files: renames, locks, extended attributes, copies and holes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minidock.kernel import files, process

MIB = 1 << 20


def open_file(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def test_rename_refuses_or_exchanges(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_PATH | os.O_CLOEXEC)
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError) as caught:
        files.renameat2(directory, "a", directory, "b", files.RENAME_NOREPLACE)
    assert (caught.value.filename, caught.value.filename2) == ("a", "b")
    files.renameat2(directory, "a", directory, "b", files.RENAME_EXCHANGE)
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("b", "a")
    files.renameat2(directory, "a", directory, "c", files.RENAME_NOREPLACE)
    files.renameat2(directory, "c", directory, "b")
    os.close(directory)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_text() == "b"


def test_syncfs(tmp_path: Path) -> None:
    fd = open_file(tmp_path / "x")
    files.syncfs(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        files.syncfs(fd)


def test_locks_exclude_and_share(tmp_path: Path) -> None:
    one, other = open_file(tmp_path / "lock"), open_file(tmp_path / "lock")
    assert files.lock_shared(one)
    assert files.lock_shared(other, block=False)
    assert not files.lock_exclusive(one, block=False)
    os.close(other)
    other = open_file(tmp_path / "lock")
    assert files.lock_exclusive(one, block=False)
    assert not files.lock_shared(other, block=False)
    assert not files.lock_exclusive(other, block=False)
    os.close(one)
    assert files.lock_exclusive(other)
    os.close(other)


def test_lock_is_freed_by_its_holders_death(tmp_path: Path) -> None:
    ready, ready_writer = os.pipe2(os.O_CLOEXEC)
    never, never_writer = os.pipe2(os.O_CLOEXEC)

    def child() -> None:
        files.lock_exclusive(open_file(tmp_path / "lock"))
        os.write(ready_writer, b"x")
        os.read(never, 1)

    with process.spawn(child) as spawned:
        assert os.read(ready, 1) == b"x"
        fd = open_file(tmp_path / "lock")
        assert not files.lock_exclusive(fd, block=False)
        process.pidfd_send_signal(spawned.pidfd, 9)
        spawned.wait()
        assert files.lock_exclusive(fd, block=False)
        os.close(fd)
    for number in (ready, ready_writer, never, never_writer):
        os.close(number)


def user_xattrs_work(path: Path) -> bool:
    try:
        os.setxattr(path, "user.probe", b"")
    except OSError:
        return False
    os.removexattr(path, "user.probe")
    return True


def test_xattrs_by_path_and_by_every_kind_of_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    if not user_xattrs_work(path):
        pytest.skip(f"no user.* attributes on the file system of {tmp_path}")
    files.set_xattr(str(path), "user.b", b"\0binary\xff")
    expected = {"user.a": b"", "user.b": b"\0binary\xff"}
    for flags in (os.O_RDONLY, os.O_PATH):
        fd = open_file(path, flags)
        files.set_xattr(fd, "user.a", b"")
        assert files.list_xattrs(fd) == expected
        assert list(files.list_xattrs(fd)) == ["user.a", "user.b"]
        assert files.get_xattr(fd, "user.b") == b"\0binary\xff"
        assert files.get_xattr(fd, "user.none") is None
        files.remove_xattr(fd, "user.a")
        with pytest.raises(OSError, match="No data"):
            files.remove_xattr(fd, "user.a")
        os.close(fd)
    assert files.list_xattrs(str(path)) == {"user.b": b"\0binary\xff"}


def test_xattrs_of_a_link_are_not_its_targets(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.touch()
    if not user_xattrs_work(target):
        pytest.skip(f"no user.* attributes on the file system of {tmp_path}")
    files.set_xattr(str(target), "user.a", b"1")
    link = tmp_path / "link"
    link.symlink_to(target)
    assert files.list_xattrs(str(link)) == {}
    assert files.list_xattrs(str(link), follow=True) == {"user.a": b"1"}
    fd = os.open(link, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    assert files.list_xattrs(fd) == {}
    assert files.get_xattr(fd, "user.a") is None
    os.close(fd)


def test_no_xattrs_where_there_are_none() -> None:
    fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    assert files.list_xattrs(fd) == {}
    assert files.get_xattr(fd, "user.a") is None
    os.close(fd)


def sparse_file(path: Path, *, size: int, data: dict[int, bytes]) -> int:
    fd = open_file(path)
    os.ftruncate(fd, size)
    for offset, content in data.items():
        os.pwrite(fd, content, offset)
    return fd


def test_data_segments(tmp_path: Path) -> None:
    block = b"x" * 65536
    fd = sparse_file(tmp_path / "x", size=8 * MIB, data={MIB: block, 4 * MIB: block})
    assert list(files.data_segments(fd, 8 * MIB)) == [(MIB, 65536), (4 * MIB, 65536)]
    assert list(files.data_segments(fd, 4 * MIB + 10)) == [(MIB, 65536), (4 * MIB, 10)]
    assert list(files.data_segments(fd, 4 * MIB)) == [(MIB, 65536)]
    assert list(files.data_segments(fd, 0)) == []
    os.close(fd)


def test_data_segments_without_holes_support() -> None:
    fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    assert list(files.data_segments(fd, 100)) == [(0, 100)]
    os.close(fd)


def test_data_segments_of_a_pipe_is_an_error() -> None:
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Illegal seek"):
        list(files.data_segments(reader, 100))
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("kind", ["file", "append", "pipe"])
@pytest.mark.parametrize("size", [0, 1, 5000, 3 * MIB + 17])
def test_copy_to_every_kind_of_destination(tmp_path: Path, kind: str, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(b"skipped" + content + b"beyond")
    src = open_file(tmp_path / "source", os.O_RDONLY)
    os.lseek(src, 7, os.SEEK_SET)
    if kind == "pipe":
        reader, dst = os.pipe2(os.O_CLOEXEC)
        with process.spawn(lambda: drain(reader, dst, tmp_path / "target")) as child:
            assert files.copy_range(src, dst, size) == size
            os.close(dst)
            assert child.wait() == 0
        os.close(reader)
        assert (tmp_path / "target").read_bytes() == content
    else:
        dst = open_file(tmp_path / "target", os.O_WRONLY | os.O_CREAT | (os.O_APPEND if kind == "append" else 0))
        os.write(dst, b"head")
        assert files.copy_range(src, dst, size) == size
        assert os.lseek(dst, 0, os.SEEK_CUR) == 4 + size
        os.close(dst)
        assert (tmp_path / "target").read_bytes() == b"head" + content
    assert os.lseek(src, 0, os.SEEK_CUR) == 7 + size
    os.close(src)


def drain(reader: int, writer: int, target: Path) -> int:
    os.close(writer)
    with open(target, "wb") as file:
        while chunk := os.read(reader, 65536):
            file.write(chunk)
    return 0


def test_copy_of_a_file_that_is_shorter_than_asked(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"short")
    src, dst = open_file(tmp_path / "source"), open_file(tmp_path / "target")
    assert files.copy_range(src, dst, 100) == 5
    os.close(src)
    os.close(dst)
    assert (tmp_path / "target").read_bytes() == b"short"


def test_copy_of_a_proc_file_that_claims_to_be_empty(tmp_path: Path) -> None:
    src = os.open("/proc/version", os.O_RDONLY | os.O_CLOEXEC)
    dst = open_file(tmp_path / "target")
    assert files.copy_range(src, dst, MIB) > 10
    os.close(src)
    os.close(dst)
    assert (tmp_path / "target").read_bytes() == Path("/proc/version").read_bytes()


def test_copy_reports_real_errors(tmp_path: Path) -> None:
    src = open_file(tmp_path / "source")
    os.write(src, b"x" * 100)
    os.lseek(src, 0, os.SEEK_SET)
    full = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
    with pytest.raises(OSError, match="No space") as caught:
        files.copy_range(src, full, 100)
    assert caught.value.errno == errno.ENOSPC
    os.close(full)
    os.close(src)


@pytest.mark.parametrize("start", [0, MIB + 100, 6 * MIB])
def test_sparse_copy_keeps_holes(tmp_path: Path, start: int) -> None:
    src = sparse_file(tmp_path / "source", size=8 * MIB + 3, data={MIB: b"a" * 65536, 4 * MIB: b"b" * 65536})
    os.lseek(src, start, os.SEEK_SET)
    dst = open_file(tmp_path / "target")
    os.lseek(dst, start, os.SEEK_SET)
    assert files.copy_range(src, dst, 100 * MIB, sparse=True) == 8 * MIB + 3 - start
    assert os.fstat(dst).st_size == 8 * MIB + 3
    assert os.lseek(dst, 0, os.SEEK_CUR) == os.lseek(src, 0, os.SEEK_CUR) == 8 * MIB + 3
    assert os.fstat(dst).st_blocks <= os.fstat(src).st_blocks
    assert os.fstat(dst).st_blocks * 512 < MIB
    assert os.pread(dst, 9 * MIB, start) == os.pread(src, 9 * MIB, start)
    os.close(src)
    os.close(dst)


def test_clone_file_says_whether_it_could(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 8192)
    src, dst = open_file(tmp_path / "source"), open_file(tmp_path / "target")
    cloned = files.clone_file(src, dst)
    assert os.fstat(dst).st_size == (8192 if cloned else 0)
    os.close(src)
    os.close(dst)


def test_fs_magic_and_name(tmp_path: Path) -> None:
    assert files.fs_name(files.fs_magic("/proc")) == "proc"
    fd = os.open(tmp_path, os.O_PATH | os.O_CLOEXEC)
    assert files.fs_magic(fd) == files.fs_magic(str(tmp_path))
    os.close(fd)
    assert files.fs_name(0xEF53) == "extfs"
    assert files.fs_name(0x9123683E) == "btrfs"
    assert files.fs_name(0x12345678) == "0x12345678"
    with pytest.raises(FileNotFoundError) as caught:
        files.fs_magic("/nonexistent")
    assert caught.value.filename == "/nonexistent"
