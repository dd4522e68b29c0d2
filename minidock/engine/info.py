"""``info``: the storage driver, what there is, and the host, under docker's names."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from minidock import __version__
from minidock.containers import launching, status
from minidock.engine import limits
from minidock.engine.apt_sources import host_release
from minidock.engine.parts import make_driver, make_parts
from minidock.errors import HostError, MinidockError, StoreError
from minidock.kernel import cgroups
from minidock.kernel.files import fs_magic, fs_name
from minidock.model.container import PAUSED, RUNNING
from minidock.store import files, locks
from minidock.store.images import Images
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from minidock.drivers.interface import Driver
    from minidock.engine.base import EngineBase
    from minidock.store.layout import DataRoot

_PROXIES = (("HttpProxy", "http_proxy"), ("HttpsProxy", "https_proxy"), ("NoProxy", "no_proxy"))
_CREDENTIALS = re.compile(r"(?<=//)[^/@]*@|^[^/@]*@")


def info(engine: EngineBase) -> dict[str, Any]:
    """Everything that ``info`` tells, in the order in which it is shown, under docker's JSON names.

    ``DriverStatus`` are pairs of label and value; ``MemTotal`` and ``RootFree`` are bytes; ``Warnings`` one sentence
    each. Raises HostError, StoreError, DriverError.
    """
    root = engine.ready()
    layout = cgroups.detect()
    found = limits.find_limits(layout)
    driver = make_driver(engine)
    driver_status = [*_driver_status(root, driver.name), ("Layers", _layers(driver))]
    warnings = limits.warnings(layout, found)
    if ("Supports d_type", "false") in driver_status:
        warnings.append(f"The file system of {root.path} does not support d_type: overlay2 loses files on it")
    return {
        **_counts(engine),
        "ServerVersion": __version__,
        "Driver": driver.name,
        "DriverStatus": [list(pair) for pair in driver_status],
        "LoggingDriver": "json-file",
        "Plugins": {"Volume": ["local"], "Network": list(launching.NETWORKS), "Log": ["json-file"]},
        "CgroupDriver": "cgroupfs" if layout.version else "none",
        "CgroupVersion": str(layout.version or ""),
        "CgroupControllers": sorted(cgroups.available(layout)),
        **found._asdict(),
        "Runtimes": {"minidock": {"path": "minidock"}},
        "DefaultRuntime": "minidock",
        "InitBinary": _init_binary(),
        "SecurityOptions": _security_options(),
        **_host(),
        "Name": os.uname().nodename,
        "ID": _engine_id(root),
        "DockerRootDir": root.path,
        "RootFree": _free(root.path),
        "Debug": engine.log.verbose,
        "ExperimentalBuild": False,
        **_proxies(),
        "IDMappings": {"UIDMap": _id_map("/proc/self/uid_map"), "GIDMap": _id_map("/proc/self/gid_map")},
        "LiveRestoreEnabled": True,
        "IPv4Forwarding": _text("/proc/sys/net/ipv4/ip_forward") == "1",
        "Warnings": [f"WARNING: {warning}" for warning in warnings],
    }


def _counts(engine: EngineBase) -> dict[str, int]:
    """Containers by their true state: the record of one whose monitor is dead is put right first."""
    states = [state.status for _, state in status.list_all(make_parts(engine))]
    running, paused = states.count(RUNNING), states.count(PAUSED)
    return {
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
        "Images": len(Images(engine.root).ids()),
    }


def _layers(driver: Driver) -> str:
    form, why = driver.form
    shown = "mounted from their tarballs" if form == "tarball" else "unpacked trees"
    return f"{shown} ({why})"


def _driver_status(root: DataRoot, name: str) -> list[tuple[str, str]]:
    pairs = [("Backing Filesystem", fs_name(fs_magic(root.layers)))]
    try:
        return [*pairs, *_probed(root, name)]
    except OSError as error:
        # A data root that is full or read-only can still be told about.
        return [*pairs, ("Supports d_type", f"unknown: {error.strerror}")]


def _probed(root: DataRoot, name: str) -> list[tuple[str, str]]:
    from minidock.engine.overlay_probe import probe_overlay, supports_d_type

    pairs = []
    with Staging(root, "probe") as staging:
        pairs.append(("Supports d_type", _word(supports_d_type(staging.path))))
        if name == "overlay2":
            try:
                overlay = probe_overlay(staging.path)
            except OSError as error:
                return [*pairs, ("Native Overlay Diff", f"unknown: {error.strerror}")]
            pairs.append(("Using metacopy", _word(overlay.metacopy)))
            pairs.append(("Native Overlay Diff", _word(overlay.native_diff)))
            pairs.append(("userxattr", _word(overlay.userxattr)))
    return pairs


def _host() -> dict[str, Any]:
    name = os.uname()
    release = host_release()
    return {
        "KernelVersion": name.release,
        "OperatingSystem": release.get("PRETTY_NAME") or release.get("NAME") or name.sysname,
        "OSType": "linux",
        "Architecture": name.machine,
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": _memory(),
    }


def _memory() -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB$", _text("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _init_binary() -> str:
    try:
        return os.path.basename(launching.find_init())
    except HostError:
        return ""


def _security_options() -> list[str]:
    """What every container gets unless it asks otherwise."""
    options = []
    if os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        options.append("name=seccomp,profile=builtin")
    if os.path.exists("/proc/self/ns/cgroup"):
        options.append("name=cgroupns")
    return options


def _proxies() -> dict[str, str]:
    found = {}
    for key, variable in _PROXIES:
        value = os.environ.get(variable) or os.environ.get(variable.upper()) or ""
        found[key] = mask_credentials(value) if key != "NoProxy" else value
    return found


def mask_credentials(url: str) -> str:
    """A URL in which ``xxxxx:xxxxx`` stands for whatever is before the host, as docker masks it."""
    return _CREDENTIALS.sub("xxxxx:xxxxx@", url, count=1)


def _engine_id(root: DataRoot) -> str:
    """A UUID of the data root, made when it is first asked for; empty where there is no room for it."""
    path = f"{root.path}/id"
    for _ in range(2):
        try:
            text = files.read_file(path, limit=64).decode("ascii", "replace").strip()
        except FileNotFoundError:
            text = ""
        except (OSError, MinidockError):
            return ""
        if text:
            return text
        try:
            with locks.exclusive(root.lock("id")):
                if not os.path.exists(path):
                    digits = os.urandom(16).hex()
                    uuid = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
                    files.write_atomic(path, f"{uuid}\n".encode(), sync=True, scratch=root.tmp)
        except (OSError, StoreError):
            return ""
    return ""


def _free(path: str) -> int:
    values = os.statvfs(path)
    return values.f_bavail * values.f_frsize


def _id_map(path: str) -> list[dict[str, int]]:
    """user_namespaces(7), "User and group ID mappings"."""
    rows = (line.split() for line in _text(path).splitlines())
    return [{"container_id": int(row[0]), "host_id": int(row[1]), "size": int(row[2])} for row in rows if len(row) == 3]


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _word(value: bool) -> str:
    return "true" if value else "false"
