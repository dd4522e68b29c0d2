"""Capabilities of the calling process (capabilities(7)), through python-prctl; newer ones than it knows, by number.

Names are always the kernel's, upper case with the ``CAP_`` prefix. Call ``preload()`` before a chroot or a fork that
must not import.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Any

from minidock.kernel.syscall import SYS_CAPGET, SYS_CAPSET, SYS_PRCTL, syscall

# include/uapi/linux/capability.h, in the order of their numbers.
_ORDER = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES: dict[str, int] = {f"CAP_{name}": number for number, name in enumerate(_ORDER.split())}

_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_SETS = struct.Struct("<6I")


def preload() -> None:
    """Import and read what the other functions need, so that they work without the host's files."""
    _prctl()


def last_cap() -> int:
    """The highest capability number that the running kernel knows. Needs no /proc."""
    return _bounding()[1]


def bounding_set() -> frozenset[str]:
    """The names in the calling process's bounding set; numbers that have no name here are left out."""
    return _named(_bounding()[0])


def effective_set() -> frozenset[str]:
    """The names in the calling thread's effective set. Raises OSError."""
    return _named(_capget()[0])


def apply(
    *,
    bounding: frozenset[str],
    effective: frozenset[str],
    permitted: frozenset[str],
    inheritable: frozenset[str] = frozenset(),
    ambient: frozenset[str] = frozenset(),
) -> None:
    """Make the calling process's five sets exactly these.

    ``limit_bounding`` and ``set_sets`` in one. Raises OSError (EPERM: a set would grow) and ValueError (unknown name).
    """
    limit_bounding(bounding)
    set_sets(effective=effective, permitted=permitted, inheritable=inheritable, ambient=ambient)


def limit_bounding(keep: frozenset[str]) -> None:
    """Drop everything but ``keep`` from the bounding set: also numbers that have no name here.

    Needs CAP_SETPCAP, so it comes before a change of user. Raises OSError, ValueError for an unknown name.
    """
    prctl = _prctl()
    wanted = mask(keep)
    present = _bounding()[0]
    if wanted & ~present:
        raise PermissionError(errno.EPERM, f"not in the bounding set: {', '.join(sorted(_named(wanted & ~present)))}")
    surplus = present & ~wanted
    for number in range(surplus.bit_length()):
        if not surplus >> number & 1:
            continue
        if number in prctl.ALL_CAPS:
            prctl.capbset_drop(number)
        else:
            syscall(SYS_PRCTL, _PR_CAPBSET_DROP, number, 0, 0, 0)


def set_sets(
    *,
    effective: frozenset[str],
    permitted: frozenset[str],
    inheritable: frozenset[str] = frozenset(),
    ambient: frozenset[str] = frozenset(),
) -> None:
    """Set the effective, permitted, inheritable and ambient sets exactly. Raises OSError, ValueError."""
    prctl = _prctl()
    syscall(SYS_PRCTL, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    masks = (mask(effective), mask(permitted), mask(inheritable))
    flags = (prctl.CAP_EFFECTIVE, prctl.CAP_PERMITTED, prctl.CAP_INHERITABLE)
    changes = []
    for flag, wanted in zip(flags, masks, strict=True):
        for value in (True, False):
            chosen = [number for number in prctl.ALL_CAPS if bool(wanted >> number & 1) is value]
            if chosen:
                changes.append((chosen, [flag], value))
    prctl.set_caps(*changes)
    # What python-prctl has no name for is still as it was.
    if _capget() != masks:
        _capset(masks)
    for name in ambient:
        syscall(SYS_PRCTL, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, NAMES[name], 0, 0)


def lower_effective(names: frozenset[str]) -> None:
    """Take ``names`` out of the effective set; the permitted one keeps them, and an exec by user 0 gives them back.

    Raises OSError, ValueError for an unknown name.
    """
    effective, permitted, inheritable = _capget()
    lowered = effective & ~mask(names)
    if lowered != effective:
        _capset((lowered, permitted, inheritable))


def keep_over_setuid(keep: bool) -> None:
    """Whether the permitted set survives a change from user 0 (PR_SET_KEEPCAPS); exec clears it. Raises OSError."""
    _prctl().set_keepcaps(keep)


def mask(names: frozenset[str]) -> int:
    """The names as a bit mask, as /proc/PID/status prints it. Raises ValueError for an unknown name."""
    value = 0
    for name in names:
        if name not in NAMES:
            raise ValueError(f"unknown capability {name!r}")
        value |= 1 << NAMES[name]
    return value


def _named(bits: int) -> frozenset[str]:
    return frozenset(name for name, number in NAMES.items() if bits >> number & 1)


def _bounding() -> tuple[int, int]:
    """The bounding set as a mask, and the last number the kernel knows: it answers EINVAL for the next."""
    bits = number = 0
    while number < 64:
        try:
            bits |= syscall(SYS_PRCTL, _PR_CAPBSET_READ, number, 0, 0, 0) << number
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break
        number += 1
    return bits, number - 1


def _capget() -> tuple[int, int, int]:
    data = ctypes.create_string_buffer(_SETS.size)
    syscall(SYS_CAPGET, _header(), data)
    low_e, low_p, low_i, high_e, high_p, high_i = _SETS.unpack(data.raw)
    return low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32


def _capset(masks: tuple[int, int, int]) -> None:
    low = [value & 0xFFFFFFFF for value in masks]
    high = [value >> 32 for value in masks]
    syscall(SYS_CAPSET, _header(), _SETS.pack(*low, *high))


def _header() -> bytes:
    return struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)


def _prctl() -> Any:
    import prctl

    return prctl
