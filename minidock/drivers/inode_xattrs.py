"""Extended attributes of a layer that is not unpacked: what would be left of them on an unpacked one.

setxattr(2) does more than store: it leaves out what a name space does not take, checks and rewrites POSIX ACLs and
lets them change the mode, and converts file capabilities. Only what it would store byte for byte and without another
effect passes.

Sources: fs/xattr.c (xattr_permission), fs/posix_acl.c (posix_acl_from_xattr, posix_acl_valid, posix_acl_equiv_mode),
security/commoncap.c (cap_convert_nscap), fs/ext4/xattr_hurd.c of Linux.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import TYPE_CHECKING

from minidock.drivers.nodes import InexpressibleError
from minidock.drivers.tar_format import shorten
from minidock.drivers.xattrs import NO_XATTRS, belongs, unsettable

if TYPE_CHECKING:
    from collections.abc import Mapping

_CAPABILITY = "security.capability"
_ACCESS = "system.posix_acl_access"
_DEFAULT = "system.posix_acl_default"
_USER = "user."
_STORED = ("trusted.", "security.")
# Stored by some file systems or security modules, refused or given another meaning by others.
_DEPENDS = ("gnu.", "btrfs.", "security.ima", "security.evm", "security.SMACK64")

_MAX_NAME = 255
_MAX_VALUE = 0xFFFF

# struct vfs_ns_cap_data: the revision with its flags, then two sets of two words each, then, in revision 3, a user ID.
_CAP_EFFECTIVE = 1
_CAP_REVISION_2 = 0x0200_0000
_CAP_REVISION_3 = 0x0300_0000
_CAP_SIZE_2 = 20
_CAP_SIZE_3 = 24

# struct posix_acl_xattr_header (version 2) and posix_acl_xattr_entry: tag, permissions, id.
_ACL_HEADER = b"\x02\0\0\0"
_ACL_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _NAMED_USER, _GROUP_OBJ, _NAMED_GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFF_FFFF
_NAMED = {_NAMED_USER, _NAMED_GROUP}


def kept(mode: int, xattrs: Mapping[str, bytes], path: str) -> Mapping[str, bytes]:
    """Those of ``xattrs`` that an unpacked inode of st_mode ``mode`` would have.

    Raises ArchiveError for a file capability that the kernel refuses, InexpressibleError for whatever it would not
    store just so. ``path`` serves the error.
    """
    found = {name: value for name, value in xattrs.items() if belongs(name) and _is_kept(mode, name, value, path)}
    return found or NO_XATTRS


def _is_kept(mode: int, name: str, value: bytes, path: str) -> bool:
    if len(value) > _MAX_VALUE or len(os.fsencode(name)) > _MAX_NAME:
        raise InexpressibleError(f"{shorten(path)} has an extended attribute that is too large")
    if name.startswith(_DEPENDS):
        raise InexpressibleError(f"{shorten(path)} has an extended attribute {shorten(name)}")
    if name.startswith(_USER):
        return name != _USER and (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    if name == _CAPABILITY:
        _check_capability(value, path)
        return True
    if name.startswith(_STORED):
        return name not in _STORED
    if name in {_ACCESS, _DEFAULT} and not stat.S_ISLNK(mode):
        if not (stat.S_ISDIR(mode) if name == _DEFAULT else True) or not _is_plain_acl(mode, name, value):
            raise InexpressibleError(f"{shorten(path)} has an ACL that the kernel would refuse or change")
        return True
    return False


def _check_capability(value: bytes, path: str) -> None:
    revision = int.from_bytes(value[:4], "little") & ~_CAP_EFFECTIVE
    if len(value) == _CAP_SIZE_3 and revision == _CAP_REVISION_3:
        raise InexpressibleError(f"{shorten(path)} has a file capability that the kernel would convert")
    if len(value) != _CAP_SIZE_2 or revision != _CAP_REVISION_2:
        raise unsettable(path, errno.EINVAL)


def _is_plain_acl(mode: int, name: str, value: bytes) -> bool:
    """Whether the kernel would take an ACL and give it back byte for byte, and leave the mode as it is.

    An access ACL that says no more than the mode does is not stored, one that says more sets the mode: owner and
    others are its own, the group's bits are its mask.
    """
    if value[:4] != _ACL_HEADER or len(value) % _ACL_ENTRY.size != len(_ACL_HEADER):
        return False
    entries = list(_ACL_ENTRY.iter_unpack(value[4:]))
    if any(permissions > 7 or (identity == _NOBODY) is (tag in _NAMED) for tag, permissions, identity in entries):
        return False
    tags = [tag for tag, _, _ in entries]
    single = [tag for tag in tags if tag not in _NAMED]
    masked = single == [_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER]
    if tags != sorted(tags) or not (masked or tags == [_USER_OBJ, _GROUP_OBJ, _OTHER]):
        return False
    if name == _DEFAULT:
        return True
    of = {tag: permissions for tag, permissions, _ in entries}
    return masked and mode & 0o777 == of[_USER_OBJ] << 6 | of[_MASK] << 3 | of[_OTHER]
