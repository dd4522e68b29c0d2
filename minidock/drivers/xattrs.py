"""Extended attributes of layers: which belong to a layer, and their reading and writing.

Overlayfs's own never do: an image that brought them could forge deletions. SELinux's labels are the host's policy.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_XATTRS: Mapping[str, bytes] = {}

_OVERLAY = ("trusted.overlay.", "user.overlay.")
_FOREIGN = "security.selinux"
_VITAL = "security.capability"
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL})


def belongs(name: str) -> bool:
    """Whether an attribute is part of a layer."""
    return not name.startswith(_OVERLAY) and name != _FOREIGN


def read(file: str | int) -> Mapping[str, bytes]:
    """The layer's attributes of an open file or a path whose last component is not followed. Raises OSError."""
    names = names_of(file)
    return values_of(file, names) if names else NO_XATTRS


def names_of(file: str | int) -> list[str]:
    """The names of all attributes, also those that do not belong. Raises OSError."""
    try:
        return os.listxattr(file) if isinstance(file, int) else os.listxattr(file, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise


def values_of(file: str | int, names: list[str]) -> Mapping[str, bytes]:
    """The values of those ``names`` that belong to a layer. Raises OSError."""
    if isinstance(file, int):
        return {name: os.getxattr(file, name) for name in names if belongs(name)}
    return {name: os.getxattr(file, name, follow_symlinks=False) for name in names if belongs(name)}


def strip(file: str | int, names: list[str], *, keep: str = "") -> None:
    """Remove those of ``names`` that overlayfs wrote, but ``keep``. Raises OSError."""
    for name in names:
        if name.startswith(_OVERLAY) and name != keep:
            if isinstance(file, int):
                os.removexattr(file, name)
            else:
                os.removexattr(file, name, follow_symlinks=False)


def write(file: str | int, xattrs: Mapping[str, bytes], name: str) -> None:
    """Give a new file those of ``xattrs`` that belong to a layer; ``name`` serves the error.

    What the file system cannot hold (``user.*`` on a symbolic link, another system's names) is left out, as docker
    does, but a file capability is never lost silently. Raises ArchiveError for that one, OSError.
    """
    for key, value in xattrs.items():
        if not belongs(key):
            continue
        if key == _VITAL and not value:
            # The kernel would store it and then fail to read it.
            raise unsettable(name, errno.EINVAL)
        try:
            if isinstance(file, int):
                os.setxattr(file, key, value)
            else:
                os.setxattr(file, key, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            if key == _VITAL:
                raise unsettable(name, error.errno) from error


def replace(file: str | int, xattrs: Mapping[str, bytes], name: str) -> None:
    """As ``write``, on a file that may have others of its own: those that belong to a layer go first."""
    for old in names_of(file):
        if belongs(old) and old not in xattrs:
            os.removexattr(file, old)
    write(file, xattrs, name)


def unsettable(name: str, code: int | None) -> ArchiveError:
    """The error of the file ``name`` whose capability the kernel refuses with the errno ``code``."""
    return ArchiveError(f"the file capability of {name[:100]!r} cannot be set: {os.strerror(code or errno.EINVAL)}")
