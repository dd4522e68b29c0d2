"""The last exec: a small static program in a sealed memfd takes the interpreter's place before the container's command.

A process in the container can open /proc/PID/exe of the one that started it and overwrite the file (CVE-2019-5736).
Between the engine and the container's command lies therefore this program: it is in no file system and can't be written
to. Its source is tests/unit/kernel/trampoline_*.S, which a test assembles and compares.

It may be executed but not read. The kernel makes a process non-dumpable that executes what it may not read, from the
first instruction on: until the command's own exec nobody in the container, but who was given CAP_SYS_PTRACE, can trace
it or open the error pipe through /proc. A process that holds CAP_DAC_OVERRIDE may read everything, so its caller puts
that aside first.

Sources: memfd_create(2), execveat(2), fcntl(2) on seals; MFD_EXEC and F_SEAL_EXEC are Linux 6.3; would_dump and
begin_new_exec in fs/exec.c of Linux.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

MARK = "\x01"
ERROR_FD = 3

_MFD_CLOEXEC = 0x1
_MFD_ALLOW_SEALING = 0x2
_MFD_EXEC = 0x10
_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE
_SEAL_EXEC = 0x20
_EXECUTE_ONLY = 0o111

ELF = {
    "x86_64": bytes.fromhex(
        "7f454c4602010100000000000000000002003e0001000000b000400000000000400000000000000000000000000000000000"
        "000040003800020000000000000001000000050000000000000000000000000040000000000000004000000000001e010000"
        "000000001e01000000000000001000000000000051e574640600000000000000000000000000000000000000000000000000"
        "0000000000000000000000000000000000001000000000000000488b442408668338017557b848000000bf03000000be0200"
        "0000ba010000000f0585c0783db83b000000488b7c2410488d742418488b0c24488d54cc100f05f7d889c350b801000000bf"
        "030000004889e6ba040000000f05bf7f00000083fb027405bf7e000000b8e70000000f05"
    ),
    "aarch64": bytes.fromhex(
        "7f454c460201010000000000000000000200b70001000000b000400000000000400000000000000000000000000000000000"
        "0000400038000200000000000000010000000500000000000000000000000000400000000000000040000000000028010000"
        "000000002801000000000000000001000000000051e574640600000000000000000000000000000000000000000000000000"
        "0000000000000000000000000000000000001000000000000000e90740f92a0140795f05007101030054280380d2600080d2"
        "410080d2220080d2010000d44002f8b7a81b80d2e00b40f9e1630091e90340f9e2430091420c098b010000d4f303004bf303"
        "00b9080880d2600080d2e1030091820080d2010000d4e00f80d27f0a007140000054c00f80d2c80b80d2010000d4"
    ),
}


def open_trampoline() -> int:
    """The program in a new memfd that nobody can change any more; CLOEXEC. Raises OSError."""
    try:
        fd = os.memfd_create("minidock-exec", _MFD_CLOEXEC | _MFD_ALLOW_SEALING | _MFD_EXEC)
        seals = _SEALS | _SEAL_EXEC
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("minidock-exec", _MFD_CLOEXEC | _MFD_ALLOW_SEALING)
        seals = _SEALS
    try:
        os.write(fd, ELF[os.uname().machine])
        os.fchmod(fd, _EXECUTE_ONLY)
        fcntl.fcntl(fd, _F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def exec_trampoline(fd: int, path: str, argv: Sequence[str], env: Mapping[str, str], *, error_fd: int) -> NoReturn:
    """Replace the calling process by the program at ``path``, through the trampoline ``fd``.

    ``error_fd`` is the CLOEXEC pipe that ``process.read_failure`` reads: it becomes descriptor 3. When ``path``
    can't be executed, its errno goes there as four bytes and the process exits with 127 (ENOENT) or 126. Descriptors
    from 4 on that are not CLOEXEC reach the program. Raises OSError when the trampoline itself can't be executed.
    """
    if error_fd == ERROR_FD:
        os.set_inheritable(ERROR_FD, True)
    else:
        if fd == ERROR_FD:
            fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ERROR_FD + 1)
        os.dup2(error_fd, ERROR_FD, inheritable=True)
    os.execve(fd, [MARK, path, *argv], env)
