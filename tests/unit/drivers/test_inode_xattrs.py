from __future__ import annotations

import stat
import struct

import pytest

from minidock.drivers.inode_xattrs import kept
from minidock.drivers.nodes import InexpressibleError
from minidock.errors import ArchiveError

FILE, FOLDER, SYMLINK, FIFO = stat.S_IFREG | 0o664, stat.S_IFDIR | 0o664, stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o664
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
NO_ID = 0xFFFF_FFFF
U, G, M, O = (1, 6, NO_ID), (4, 4, NO_ID), (16, 6, NO_ID), (32, 4, NO_ID)  # noqa: E741


def acl(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


EXTENDED = acl(U, (2, 6, 5), G, (8, 4, 5), M, O)
MINIMAL = acl(U, G, O)


@pytest.mark.parametrize("mode", [FILE, FOLDER, SYMLINK, FIFO])
def test_name_spaces(mode: int) -> None:
    given = {
        "user.k": b"",
        "trusted.k": b"x",
        "security.k": b"x",
        "user.": b"x",
        "trusted.": b"x",
        "security.": b"x",
        "system.k": b"x",
        "com.apple.k": b"x",
        "k": b"x",
        "trusted.overlay.opaque": b"y",
        "user.overlay.whiteout": b"y",
        "security.selinux": b"x",
    }
    expected = {"user.k": b""} if mode in {FILE, FOLDER} else {}
    assert kept(mode, given, "x") == expected | {"trusted.k": b"x", "security.k": b"x"}


@pytest.mark.parametrize(
    "name",
    [
        "gnu.translator",
        "btrfs.compression",
        "security.ima",
        "security.evm",
        "security.SMACK64EXEC",
        "user." + "é" * 126,
    ],
)
def test_names_that_mean_something_elsewhere(name: str) -> None:
    with pytest.raises(InexpressibleError, match="extended attribute"):
        kept(FILE, {name: b"x"}, "x")


def test_large_values() -> None:
    assert kept(FILE, {"user.k": bytes(65535)}, "x")
    with pytest.raises(InexpressibleError, match="too large"):
        kept(FILE, {"user.k": bytes(65536)}, "x")


def test_capabilities() -> None:
    for revision in (0x0200_0000, 0x0200_0001):
        value = {"security.capability": struct.pack("<5I", revision, 1, 0, 0, 0)}
        assert kept(FILE, value, "x") == value
    with pytest.raises(InexpressibleError, match="convert"):
        kept(FILE, {"security.capability": struct.pack("<6I", 0x0300_0001, 1, 0, 0, 0, 7)}, "x")
    for bad in (
        b"",
        b"short",
        bytes(20),
        struct.pack("<3I", 0x0100_0001, 1, 0),
        struct.pack("<5I", 0x0300_0000, *[0] * 4),
    ):
        with pytest.raises(ArchiveError, match="cannot be set: Invalid argument"):
            kept(FILE, {"security.capability": bad}, "x")


def test_acls_that_are_stored_as_they_are() -> None:
    assert kept(FILE, {ACCESS: EXTENDED}, "x") == {ACCESS: EXTENDED}
    assert kept(FIFO, {ACCESS: acl(U, G, M, O)}, "x")
    both = {ACCESS: EXTENDED, DEFAULT: MINIMAL}
    assert kept(FOLDER, both, "x") == both
    assert kept(FOLDER | 0o7000, both, "x") == both
    assert kept(SYMLINK, both | {DEFAULT: b"bad"}, "x") == {}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        acl(),
        EXTENDED[:-1],
        EXTENDED + bytes(1),
        acl(U, (2, 6, 5), G, M, O, version=3),
        MINIMAL,
        acl(U, (2, 6, 5), G, O),
        acl(U, G, M),
        acl(U, U, G, M, O),
        acl(U, G, (2, 6, 5), M, O),
        acl(U, G, M, O, (64, 1, NO_ID)),
        acl(U, (2, 8, 5), G, M, O),
        acl(U, (2, 6, NO_ID), G, M, O),
        acl((1, 6, 0), (2, 6, 5), G, M, O),
        acl((1, 7, NO_ID), (2, 6, 5), G, M, O),
        acl(U, (2, 6, 5), G, (16, 4, NO_ID), O),
        acl(U, (2, 6, 5), G, M, (32, 0, NO_ID)),
    ],
)
def test_acls_that_the_kernel_would_refuse_or_change(value: bytes) -> None:
    with pytest.raises(InexpressibleError, match="ACL"):
        kept(FILE, {ACCESS: value}, "x")


def test_only_directories_have_default_acls() -> None:
    with pytest.raises(InexpressibleError, match="ACL"):
        kept(FILE, {DEFAULT: MINIMAL}, "x")
