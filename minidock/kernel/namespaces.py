"""Namespaces: leaving one's own, joining another process's (namespaces(7))."""

from __future__ import annotations

import os

from minidock.kernel.syscall import SYS_SETNS, SYS_UNSHARE, syscall

CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000


def unshare(flags: int) -> None:
    """Move the calling process to new namespaces of the kinds in ``flags`` (unshare(2)).

    With CLONE_NEWPID only later children are in the new one. Raises OSError.
    """
    syscall(SYS_UNSHARE, flags)


def setns(fd: int, flags: int) -> None:
    """Join the namespace that ``fd`` names (a /proc/PID/ns file, ``flags`` one kind or 0), or those of the kinds in
    ``flags`` of the process that the pidfd ``fd`` names (setns(2), Linux 5.8 for a pidfd). Raises OSError."""
    syscall(SYS_SETNS, fd, flags)


def pidfd_open(pid: int) -> int:
    """A CLOEXEC descriptor of the process ``pid`` (pidfd_open(2)). Raises OSError (ESRCH when it is gone)."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"pid {pid}") from None
