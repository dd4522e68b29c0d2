"""System calls for which neither Python nor (everywhere) glibc has a wrapper.

The library is opened with ``PyDLL``, which keeps the interpreter's lock during a call: a child that ``CDLL`` would make
by clone3 might find the lock held by a thread that does not exist there.
"""

from __future__ import annotations

import ctypes
import errno
import os

libc = ctypes.PyDLL(None, use_errno=True)

_call = libc.syscall
_call.restype = ctypes.c_long
_c_long = ctypes.c_long

_MACHINE = os.uname().machine
_TABLES = ("x86_64", "aarch64")
if _MACHINE not in _TABLES:
    raise ImportError(f"no system call numbers for the machine {_MACHINE!r} (known: {', '.join(_TABLES)})")
_COLUMN = _TABLES.index(_MACHINE)

# Columns: x86_64 (arch/x86/entry/syscalls/syscall_64.tbl), aarch64 (include/uapi/asm-generic/unistd.h).
SYS_CAPGET = (125, 90)[_COLUMN]
SYS_CAPSET = (126, 91)[_COLUMN]
SYS_STATFS = (137, 43)[_COLUMN]
SYS_FSTATFS = (138, 44)[_COLUMN]
SYS_PIVOT_ROOT = (155, 41)[_COLUMN]
SYS_PRCTL = (157, 167)[_COLUMN]
SYS_MOUNT = (165, 40)[_COLUMN]
SYS_UMOUNT2 = (166, 39)[_COLUMN]
SYS_KEYCTL = (250, 219)[_COLUMN]
SYS_UNSHARE = (272, 97)[_COLUMN]
SYS_SYNC_FILE_RANGE = (277, 84)[_COLUMN]
SYS_SYNCFS = (306, 267)[_COLUMN]
SYS_SETNS = (308, 268)[_COLUMN]
SYS_RENAMEAT2 = (316, 276)[_COLUMN]
SYS_SECCOMP = (317, 277)[_COLUMN]
SYS_BPF = (321, 280)[_COLUMN]
# From 424 on all machines have the same numbers.
SYS_PIDFD_SEND_SIGNAL = 424
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_CLONE3 = 435
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000


def syscall(number: int, *args: object, path: str = "") -> int:
    """Call the kernel with integers, bytes (a pointer to them, NUL-terminated), ctypes buffers or None (NULL).

    Returns the call's value. Raises OSError(errno, strerror, path) when it is negative; ``path`` only serves the error.
    """
    # A bare int would be cut to 32 bits: the C function is variadic and ctypes passes an int.
    value: int = _call(_c_long(number), *[_c_long(a) if isinstance(a, int) else a for a in args])
    if value == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path) if path else OSError(code, os.strerror(code))
    return value


def cstring(text: str) -> bytes:
    """A path or name as the bytes to hand to ``syscall``. Raises OSError(EINVAL) for an embedded NUL, at which the
    kernel would stop reading."""
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise OSError(errno.EINVAL, "embedded null byte", text)
    return encoded
