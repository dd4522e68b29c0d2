"""Which limits the host's cgroups can set, and what to warn of."""

from __future__ import annotations

import os
from typing import NamedTuple

from minidock.kernel import cgroups


class Limits(NamedTuple):
    """Docker's names in ``info`` for what can be limited."""

    MemoryLimit: bool
    SwapLimit: bool
    CpuCfsPeriod: bool
    CpuCfsQuota: bool
    CPUShares: bool
    CPUSet: bool
    PidsLimit: bool
    BlkioWeight: bool
    BlkioThrottle: bool


# The control file of each limit: version 1's controller and file, then version 2's controller and file.
_FILES = {
    "MemoryLimit": ("memory", "memory.limit_in_bytes", "memory", "memory.max"),
    "SwapLimit": ("memory", "memory.memsw.limit_in_bytes", "memory", "memory.swap.max"),
    "CpuCfsPeriod": ("cpu", "cpu.cfs_period_us", "cpu", "cpu.max"),
    "CpuCfsQuota": ("cpu", "cpu.cfs_quota_us", "cpu", "cpu.max"),
    "CPUShares": ("cpu", "cpu.shares", "cpu", "cpu.weight"),
    "CPUSet": ("cpuset", "cpuset.cpus", "cpuset", "cpuset.cpus"),
    "PidsLimit": ("pids", "", "pids", "pids.max"),
    "BlkioWeight": ("blkio", "blkio.weight", "io", "io.weight"),
    "BlkioThrottle": ("blkio", "blkio.throttle.read_bps_device", "io", "io.max"),
}
_NOT_IN_ROOT = "init.scope", "system.slice", "user.slice", cgroups.PARENT

_WARNINGS = (
    ("MemoryLimit", "No memory limit support"),
    ("SwapLimit", "No swap limit support"),
    ("CpuCfsPeriod", "No cpu cfs period support"),
    ("CpuCfsQuota", "No cpu cfs quota support"),
    ("CPUShares", "No cpu shares support"),
    ("CPUSet", "No cpuset support"),
    ("PidsLimit", "No pids limit support"),
)
_V2_WARNINGS = (("BlkioWeight", "No io.weight support"), ("BlkioThrottle", "No io.max support"))
_V1_WARNINGS = (("BlkioWeight", "No blkio weight support"), ("BlkioThrottle", "No blkio throttle support"))


def find_limits(layout: cgroups.Layout) -> Limits:
    """What a container's cgroup can limit on this host."""
    return Limits(**{name: _has(layout, *files) for name, files in _FILES.items()})


def warnings(layout: cgroups.Layout, limits: Limits, *, ip_forward: str = "/proc/sys/net/ipv4/ip_forward") -> list[str]:
    """One sentence for each thing that a user of this host will miss."""
    found = []
    if not layout.version:
        found.append(
            "No cgroups are mounted: no limits, no pause, and containers that need a device filter don't start"
        )
    for name, text in (*_WARNINGS, *(_V2_WARNINGS if layout.version == 2 else _V1_WARNINGS)):
        if layout.version and not getattr(limits, name):
            found.append(text)
    if layout.version == 1:
        found.append("This host uses cgroup v1, which the kernel and systemd are giving up")
    if _read(ip_forward) == "0":
        found.append("IPv4 forwarding is disabled; the first container on a bridge enables it")
    if not os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        found.append("The kernel has no seccomp filters")
    return found


def _has(layout: cgroups.Layout, v1: str, v1_file: str, v2: str, v2_file: str) -> bool:
    if v1 in layout.controllers:
        return os.path.exists(f"{layout.controllers[v1]}/{v1_file}")
    if not layout.unified or v2 not in _read(f"{layout.unified}/cgroup.controllers").split():
        return False
    # The root group has no control files; a child of it that has the controller shows which there are.
    for name in _NOT_IN_ROOT:
        child = f"{layout.unified}/{name}"
        if v2 in _read(f"{child}/cgroup.controllers").split():
            return os.path.exists(f"{child}/{v2_file}")
    return True


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
