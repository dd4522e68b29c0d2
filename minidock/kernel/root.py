"""Changing the root: pivot_root(2) the way that needs no directory for the old one, then chroot."""

from __future__ import annotations

import os

from minidock.kernel.mount import MNT_DETACH, pivot_root, umount2
from minidock.kernel.namespaces import CLONE_NEWNS, setns


def pivot_into(root_fd: int) -> None:
    """Make the mount that ``root_fd`` names the root of this mount namespace and of this process.

    The old root is stacked below and unmounted at once (pivot_root(2), NOTES, "pivot_root(".", ".")"); the chroot makes
    the process's own root that mount even where the kernel left it elsewhere. /proc is the caller's. Raises OSError.
    """
    # The root that is left is the process's own, and in a chroot that is not the namespace's: the host's whole tree
    # would stay beneath, and who joins the namespace would stand in it. Joining one's own namespace leaves a chroot.
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace, CLONE_NEWNS)
    finally:
        os.close(namespace)
    os.fchdir(root_fd)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chroot(".")
    os.chdir("/")
