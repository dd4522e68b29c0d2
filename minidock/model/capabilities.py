"""Capability names and the algebra of ``--cap-add`` and ``--cap-drop`` (capabilities(7); docker's rules)."""

from __future__ import annotations

from collections.abc import Iterable

from minidock.errors import UsageError

ALL = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""Every capability up to Linux 5.9, in the kernel's order: the index is the number."""

DEFAULT = frozenset(
    {
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    }
)
"""Docker's fourteen."""


def effective_set(*, add: Iterable[str], drop: Iterable[str], available: frozenset[str]) -> frozenset[str]:
    """The capabilities of a container.

    ``available`` is the engine's own bounding set: ``ALL`` means all of those. Adding ALL gives everything less the
    drops; else dropping ALL gives only what is added; else the default less the drops plus the adds. Names are taken
    in any case, with or without ``CAP_``. Raises UsageError for an unknown name and for an added one that is not
    available.
    """
    added, dropped = _names(add, "--cap-add"), _names(drop, "--cap-drop")
    missing = sorted(name for name in added if name != "ALL" and name not in available)
    if missing:
        raise UsageError(f"capability {missing[0]} is not available on this host, so --cap-add cannot give it")
    if "ALL" in added:
        return available - dropped
    if "ALL" in dropped:
        return frozenset(added)
    return ((DEFAULT - dropped) | added) & available


def _names(values: Iterable[str], flag: str) -> frozenset[str]:
    names = set()
    for value in values:
        name = value.upper()
        if name != "ALL" and not name.startswith("CAP_"):
            name = "CAP_" + name
        if name != "ALL" and name not in ALL:
            raise UsageError(f"unknown capability {value!r} in {flag}", hint="capabilities(7) lists them")
        names.add(name)
    return frozenset(names)
