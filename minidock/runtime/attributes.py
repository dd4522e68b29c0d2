"""Attributes of attached mounts, also on kernels before mount_setattr(2), which is Linux 5.12."""

from __future__ import annotations

import errno
import os

from minidock.kernel import mount as km

# MOUNT_ATTR_* and statvfs(3)'s ST_* as mount(2) has them; what is neither set nor there already, a remount would clear.
_FLAGS = (
    (km.MOUNT_ATTR_RDONLY, os.ST_RDONLY, km.MS_RDONLY),
    (km.MOUNT_ATTR_NOSUID, os.ST_NOSUID, km.MS_NOSUID),
    (km.MOUNT_ATTR_NODEV, os.ST_NODEV, km.MS_NODEV),
    (km.MOUNT_ATTR_NOEXEC, os.ST_NOEXEC, km.MS_NOEXEC),
    (km.MOUNT_ATTR_NODIRATIME, os.ST_NODIRATIME, km.MS_NODIRATIME),
)
_ATIMES = {km.MOUNT_ATTR_NOATIME: km.MS_NOATIME, km.MOUNT_ATTR_STRICTATIME: km.MS_STRICTATIME}


def set_attributes(mount: int, attributes: int = 0, *, propagation: int = 0, recursive: bool = False) -> None:
    """Set MOUNT_ATTR_* bits and the MS_* propagation type of the mount whose root the descriptor is.

    It has to be attached in the caller's mount namespace, since the classic calls reach no other. ``recursive`` takes
    the mounts below along. Raises OSError.
    """
    clear = km.MOUNT_ATTR_ATIME if attributes & km.MOUNT_ATTR_ATIME else 0
    try:
        km.mount_setattr(mount, attr_set=attributes, attr_clear=clear, propagation=propagation, recursive=recursive)
        return
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    path = f"/proc/self/fd/{mount}"
    if propagation:
        km.mount("", path, "", propagation | (km.MS_REC if recursive else 0))
    if attributes:
        # By descriptor for the mount itself, as its path may lead to what is mounted on top of it.
        for place in (path, *(_mounts_below(os.readlink(path)) if recursive else ())):
            km.mount("", place, "", km.MS_REMOUNT | km.MS_BIND | _classic(attributes, os.statvfs(place).f_flag))


def _classic(attributes: int, present: int) -> int:
    flags = sum(classic for wanted, there, classic in _FLAGS if attributes & wanted or present & there)
    if attributes & km.MOUNT_ATTR_ATIME:
        return flags | _ATIMES[attributes & km.MOUNT_ATTR_ATIME]
    kinds = ((os.ST_NOATIME, km.MS_NOATIME), (os.ST_RELATIME, km.MS_RELATIME))
    return flags | next((classic for there, classic in kinds if present & there), km.MS_STRICTATIME)


def _mounts_below(path: str) -> list[str]:
    """Mount points below ``path``, from /proc/self/mountinfo (proc(5)), where blanks are written in octal."""
    import re

    with open("/proc/self/mountinfo", "rb") as file:
        points = [line.split(b" ")[4] for line in file]
    prefix = os.fsencode(path).rstrip(b"/") + b"/"
    plain = (re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), point) for point in points)
    return [os.fsdecode(point) for point in plain if point.startswith(prefix)]
