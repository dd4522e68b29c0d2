"""Changing the root: pivot_root(2) the way that needs no directory for the old one, then chroot."""

from __future__ import annotations

import os

from minidock.kernel.mount import MNT_DETACH, pivot_root, umount2


def pivot_into(root_fd: int) -> None:
    """Make the mount that ``root_fd`` names the root of this mount namespace and of this process.

    The old root is stacked below and unmounted at once (pivot_root(2), NOTES, "pivot_root(".", ".")"); the chroot makes
    the process's own root that mount even where the kernel left it elsewhere. Raises OSError.
    """
    os.fchdir(root_fd)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chroot(".")
    os.chdir("/")
