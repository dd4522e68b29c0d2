"""Extended attributes where the file system has none, and of files that had others before."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minidock.drivers import xattrs


def refuse(number: int) -> object:
    def refused(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that can have attributes of users."""
    path = tmp_path / "file"
    path.touch()
    try:
        os.setxattr(path, "user.old", b"1")
    except OSError as error:
        pytest.skip(f"the file system of {tmp_path} has no attributes of users: {error.strerror}")
    return path


def test_a_file_system_without_attributes_has_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dict(xattrs.read(str(file))) == {"user.old": b"1"}
    monkeypatch.setattr(os, "listxattr", refuse(errno.EOPNOTSUPP))
    assert dict(xattrs.read(str(file))) == {}
    with file.open() as opened:
        assert xattrs.names_of(opened.fileno()) == []


def test_attributes_that_cannot_be_read_are_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listxattr", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        xattrs.read(str(file))


def test_attributes_are_replaced(file: Path) -> None:
    os.setxattr(file, "user.both", b"old")
    xattrs.replace(str(file), {"user.both": b"new", "user.new": b"2", "security.selinux": b"not a layer's"}, "file")
    assert {name: os.getxattr(file, name) for name in os.listxattr(file) if name.startswith("user.")} == {
        "user.both": b"new",
        "user.new": b"2",
    }
