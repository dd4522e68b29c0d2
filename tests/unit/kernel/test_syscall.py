"""The bare system call: errors, wide arguments, strings."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest

from minidock.kernel import syscall as sc


def test_value_is_returned() -> None:
    assert sc.syscall(sc.SYS_CLOSE_RANGE, 1 << 20, (1 << 20) + 1, 0) == 0


def test_failure_is_an_oserror_with_errno_text_and_path() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        sc.syscall(sc.SYS_OPENAT2, sc.AT_FDCWD, b"/nonexistent", b"\0" * 24, 24, path="/nonexistent")
    assert caught.value.filename == "/nonexistent"
    assert caught.value.strerror == os.strerror(errno.ENOENT)


def test_failure_without_a_path_has_no_filename() -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        sc.syscall(sc.SYS_SYNCFS, -1)
    assert caught.value.filename is None


def test_integers_keep_their_upper_half(tmp_path: object) -> None:
    # prlimit-like calls aside, mount flags and addresses need all 64 bits: close_range takes unsigned int, so a start
    # beyond 32 bits that were cut to 3 would close descriptor 3 and those behind it.
    buffer = ctypes.create_string_buffer(256)
    assert ctypes.addressof(buffer) > 0xFFFFFFFF, "the address has to be a wide one for this test"
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    sc.syscall(sc.SYS_FSTATFS, root, ctypes.addressof(buffer))
    os.close(root)
    assert buffer.raw != bytes(256)


@pytest.mark.parametrize("text", ["a\0b", "\0"])
def test_embedded_nul_is_refused(text: str) -> None:
    with pytest.raises(OSError, match="embedded null byte") as caught:
        sc.cstring(text)
    assert caught.value.errno == errno.EINVAL


def test_undecodable_bytes_survive() -> None:
    assert sc.cstring(os.fsdecode(b"\xff\xc3x")) == b"\xff\xc3x"


def test_library_keeps_the_interpreter_lock() -> None:
    assert isinstance(sc.libc, ctypes.PyDLL)
    assert not isinstance(sc.libc, ctypes.CDLL) or type(sc.libc) is ctypes.PyDLL
