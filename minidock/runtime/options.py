"""Mount options as people and the runtime spec write them, taken apart for the kernel's new mount API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from minidock.kernel import mount as km

_ATTRS = {
    "ro": km.MOUNT_ATTR_RDONLY,
    "nosuid": km.MOUNT_ATTR_NOSUID,
    "nodev": km.MOUNT_ATTR_NODEV,
    "noexec": km.MOUNT_ATTR_NOEXEC,
    "noatime": km.MOUNT_ATTR_NOATIME,
    "strictatime": km.MOUNT_ATTR_STRICTATIME,
    "nodiratime": km.MOUNT_ATTR_NODIRATIME,
}
_CLEARS = {
    "rw": km.MOUNT_ATTR_RDONLY,
    "suid": km.MOUNT_ATTR_NOSUID,
    "dev": km.MOUNT_ATTR_NODEV,
    "exec": km.MOUNT_ATTR_NOEXEC,
    "atime": km.MOUNT_ATTR_NOATIME,
    "diratime": km.MOUNT_ATTR_NODIRATIME,
    "relatime": km.MOUNT_ATTR_NOATIME | km.MOUNT_ATTR_STRICTATIME,
}
_PROPAGATION = {
    "private": km.MS_PRIVATE,
    "rprivate": km.MS_PRIVATE,
    "shared": km.MS_SHARED,
    "rshared": km.MS_SHARED,
    "slave": km.MS_SLAVE,
    "rslave": km.MS_SLAVE,
}


def _without(attrs: int, bits: int) -> int:
    """Access times are one field of the attributes: a new value takes the place of the old."""
    return attrs & ~km.MOUNT_ATTR_ATIME if bits & km.MOUNT_ATTR_ATIME else attrs


class MountOptions(NamedTuple):
    """``attrs`` are MOUNT_ATTR_* bits; ``recursive_attrs`` go to submounts too; ``data`` is for the file system.

    ``propagation`` is one MS_* type; ``bind`` and ``recursive`` tell a bind mount and whether submounts come along.
    """

    attrs: int
    recursive_attrs: int
    propagation: int
    propagation_recursive: bool
    bind: bool
    recursive: bool
    data: tuple[tuple[str, str | None], ...]


def parse_options(options: Iterable[str]) -> MountOptions:
    """Take a list of options apart; of two that contradict each other the later one counts (mount(8))."""
    attrs = recursive_attrs = 0
    propagation, propagation_recursive = km.MS_PRIVATE, True
    bind = recursive = False
    data: list[tuple[str, str | None]] = []
    for option in options:
        if option in _ATTRS:
            attrs = _without(attrs, _ATTRS[option]) | _ATTRS[option]
        elif option in _CLEARS:
            attrs &= ~_CLEARS[option]
        elif option == "rro":
            recursive_attrs |= km.MOUNT_ATTR_RDONLY
        elif option in _PROPAGATION:
            propagation, propagation_recursive = _PROPAGATION[option], option.startswith("r")
        elif option in {"bind", "rbind"}:
            bind, recursive = True, option == "rbind"
        elif option != "newinstance":
            # devpts has had an instance of its own for each mount since Linux 4.7, whatever the option says.
            key, equals, value = option.partition("=")
            data.append((key, value if equals else None))
    return MountOptions(attrs, recursive_attrs, propagation, propagation_recursive, bind, recursive, tuple(data))
