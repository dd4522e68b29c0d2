"""clone3(2) itself: the bare call, and the detour that a program with several threads needs."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from minidock.kernel.syscall import SYS_CLONE3, syscall

CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_INTO_CGROUP = 0x200000000

_SIGCHLD = 17
_SIGKILL = 9


def clone(flags: int, cgroup_fd: int = -1, exit_signal: int = _SIGCHLD) -> tuple[int, int]:
    """(pid, pidfd) of a child, (0, -1) in it. Only for a process with one thread. Raises OSError."""
    pidfd = ctypes.c_int(-1)
    flags |= CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup_fd >= 0 else 0)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    # set_tid_size, cgroup.
    arguments = struct.pack("11Q", flags, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0))
    pid = syscall(SYS_CLONE3, arguments, len(arguments))
    return (pid, pidfd.value) if pid else (0, -1)


def clone_from_threads(flags: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """The same by a forked helper, for its parent (CLONE_PARENT). Raises OSError.

    When another thread waits for the interpreter's lock, its request to drop it is copied into the child, which drops
    it and then waits for ever for a thread that does not exist there. Only os.fork makes a new lock in time.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        try:
            # A child that is given away has no exit signal of its own: the new parent's is taken.
            pid, _ = clone(flags | CLONE_PARENT, cgroup_fd, 0)
        except OSError as error:
            pid = -(error.errno or errno.EIO)
        if pid == 0:
            os.close(reader)
            os.close(writer)
            return 0, -1
        os.write(writer, str(pid).encode())
        os.kill(os.getpid(), _SIGKILL)
    os.close(writer)
    with open(reader, "rb", buffering=0) as stream:
        answer = int(stream.read() or -errno.ECHILD)
    os.waitpid(helper, 0)
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return answer, os.pidfd_open(answer)
