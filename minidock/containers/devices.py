"""Devices of the host for a container: its nodes and cgroup rules, as the runtime spec has them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from minidock.errors import UsageError
from minidock.model.devices import device_node, is_taken, parse_device, parse_device_rule

if TYPE_CHECKING:
    from minidock.model.container import Settings
    from minidock.model.devices import DeviceRequest

    Entries = tuple[dict[str, Any], ...]

# Directories below a /dev that hold no devices of the host's, or another container's.
_SKIPPED = frozenset({"pts", "shm", "mqueue", "fd", "hugepages", ".udev", ".lxc", ".lxd-mounts"})
_OWN = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty"))


def devices_of(settings: Settings) -> tuple[Entries, Entries]:
    """The further nodes of a container's /dev and the further rules of its cgroup, read from the host's /dev now.

    All nodes with ``--privileged``, then those of ``--device``; rules of ``--device-cgroup-rule`` come last. Raises
    UsageError for a device that makes no sense or that the host does not have.
    """
    nodes = list(host_devices()) if settings.privileged else []
    rules: list[dict[str, Any]] = []
    for text in settings.devices:
        request = parse_device(text)
        found = _find(request)
        nodes += found
        rules += [
            {"allow": True, **{key: node[key] for key in ("type", "major", "minor")}, "access": request.access}
            for node in found
        ]
    rules += map(parse_device_rule, settings.device_cgroup_rules)
    return tuple(nodes), tuple(rules)


def host_devices() -> Entries:
    """The host's device nodes, but those that every container has of its own."""
    return tuple(node for path, status in _walk("/dev") if path not in _OWN and (node := device_node(path, status)))


def _find(request: DeviceRequest) -> list[dict[str, Any]]:
    """The nodes of one ``--device``: one, or all that are below a directory; links are followed to the first."""
    try:
        status = os.stat(request.host)
    except OSError as error:
        raise UsageError(f"cannot use device {request.host}: {(error.strerror or '').lower()}") from None
    if not stat.S_ISDIR(status.st_mode):
        node = device_node(request.container, status)
        if node is None:
            raise UsageError(f"cannot use device {request.host}: it is not a device")
        if request.container == "/dev":
            raise UsageError(f"cannot use device {request.host} as /dev, which is a directory")
        return [node]
    top = os.path.realpath(request.host)
    found = []
    for path, status in _walk(top):
        target = request.container + path.removeprefix(top)
        node = None if is_taken(target) else device_node(target, status)
        found += [] if node is None else [node]
    if not found:
        raise UsageError(f"cannot use device {request.host}: there is no device in the directory")
    return found


def _walk(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below a directory that is none itself, in order; what vanishes meanwhile is left out."""
    for directory, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(names):
            path = f"{directory}/{name}"
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if not is_taken(path):
                yield path, status
