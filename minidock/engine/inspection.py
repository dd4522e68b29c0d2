"""A container in the shape of docker's inspect."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from minidock.containers import status
from minidock.containers.launching import PROFILE
from minidock.containers.logs import format_time, log_path
from minidock.engine.parts import make_parts
from minidock.model.container import PAUSED, RUNNING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from minidock.engine.base import EngineBase
    from minidock.model.container import Record, Settings, State
    from minidock.model.mounts import Mount
    from minidock.store.layout import DataRoot
    from minidock.volumes.volumes import Volumes

_NEVER = "0001-01-01T00:00:00Z"


def inspect(engine: EngineBase, container: str) -> dict[str, Any]:
    """All that is known of one container. Raises NoSuchContainerError."""
    parts = make_parts(engine)
    record, state = status.find(parts, container)
    return describe(record, state, root=parts.root, volumes=parts.volumes)


def describe(record: Record, state: State, *, root: DataRoot, volumes: Volumes) -> dict[str, Any]:
    """A record and a state in docker's words."""
    directory = root.container_dir(record.id)
    return {
        "Id": record.id,
        "Created": format_time(record.created),
        "Path": record.args[0] if record.args else "",
        "Args": list(record.args[1:]),
        "State": _state(state),
        "Image": record.image_id,
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": log_path(directory),
        "Name": f"/{record.name}",
        "RestartCount": 0,
        "Driver": record.driver,
        "Platform": "linux",
        "GraphDriver": {"Name": record.driver, "Data": {"WritableDir": directory, "DiffIDs": list(record.diff_ids)}},
        "Mounts": [_mount(mount, volumes) for mount in record.mounts],
        "Config": _config(record),
        "HostConfig": _host_config(record, directory),
        "NetworkSettings": _network(record, state),
    }


def _state(state: State) -> dict[str, Any]:
    return {
        "Status": state.status,
        "Running": state.status in (RUNNING, PAUSED),
        "Paused": state.status == PAUSED,
        "Restarting": False,
        "OOMKilled": state.oom_killed,
        "Dead": False,
        "Pid": state.pid,
        "MonitorPid": state.monitor_pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": format_time(state.started) if state.started else _NEVER,
        "FinishedAt": format_time(state.finished) if state.finished else _NEVER,
    }


def _mount(mount: Mount, volumes: Volumes) -> dict[str, Any]:
    """One of ``Mounts``; a volume that was removed meanwhile keeps the path where it was."""
    value: dict[str, Any] = {"Type": mount.type}
    if mount.type == "volume":
        value["Name"] = mount.source
        value["Source"] = f"{volumes.root.volumes}/{mount.source}/_data"
    else:
        value["Source"] = mount.source
    value["Destination"] = mount.target
    if mount.type == "volume":
        value["Driver"] = "local"
    value["Mode"] = ",".join(mount.options) if mount.type == "tmpfs" else ("ro" if mount.read_only else "")
    value["RW"] = not mount.read_only
    value["Propagation"] = mount.propagation if mount.type == "bind" else ""
    return value


def _config(record: Record) -> dict[str, Any]:
    settings = record.settings
    return {
        "Hostname": record.hostname,
        "User": record.user,
        "AttachStdin": settings.interactive,
        "Tty": settings.tty,
        "OpenStdin": settings.interactive,
        "Env": list(record.env),
        "Cmd": list(settings.command) or None,
        "Entrypoint": None if settings.entrypoint is None else list(settings.entrypoint),
        "Image": record.image,
        "Volumes": {mount.target: {} for mount in record.mounts if mount.anonymous} or None,
        "WorkingDir": record.workdir,
        "ExposedPorts": {port: {} for port in record.exposed_ports} or None,
        "Labels": dict(record.labels),
        "StopSignal": record.stop_signal,
        "StopTimeout": settings.stop_timeout,
    }


def _host_config(record: Record, directory: str) -> dict[str, Any]:
    settings = record.settings
    binds = [
        f"{m.source}:{m.target}" + (":ro" if m.read_only else "")
        for m in settings.mounts
        if m.origin == "-v" and m.source
    ]
    mounts = [
        {"Type": m.type, "Source": m.source, "Target": m.target, "ReadOnly": m.read_only}
        for m in settings.mounts
        if m.origin == "--mount"
    ]
    return {
        "Binds": binds or None,
        "Mounts": mounts or None,
        "Tmpfs": {m.target: ",".join(m.options) for m in settings.mounts if m.origin == "--tmpfs"} or None,
        "NetworkMode": settings.network,
        "AutoRemove": settings.auto_remove,
        "KeepLayer": settings.keep,
        "CapAdd": list(settings.cap_add) or None,
        "CapDrop": list(settings.cap_drop) or None,
        "Privileged": settings.privileged,
        "ReadonlyRootfs": settings.read_only,
        "SecurityOpt": _security_opt(settings, directory) if settings.security_opt else None,
        "GroupAdd": list(settings.group_add) or None,
        "Devices": _devices(settings.devices) if settings.devices else None,
        "DeviceCgroupRules": list(settings.device_cgroup_rules) or None,
        "Ulimits": _ulimits(settings.ulimits) if settings.ulimits else None,
        "Sysctls": dict(text.split("=", 1) for text in settings.sysctls) or None,
        "ShmSize": settings.shm_size,
        "Init": settings.init,
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "LogConfig": {"Type": "json-file", "Config": {}},
    }


def _security_opt(settings: Settings, directory: str) -> list[str]:
    """The options, with the text of a seccomp profile, as docker has it, in place of the path that was given."""
    from minidock.model.security import security_options

    profile = security_options(settings.security_opt).profile
    texts = list(settings.security_opt)
    with contextlib.suppress(OSError, ValueError):
        if profile:
            with open(f"{directory}/{PROFILE}", "rb") as file:
                value = json.dumps(json.load(file), separators=(",", ":"))
            texts = [f"seccomp={value}" if text == f"seccomp={profile}" else text for text in texts]
    return texts


def _devices(texts: Iterable[str]) -> list[dict[str, str]]:
    from minidock.model.devices import parse_device

    return [
        {"PathOnHost": request.host, "PathInContainer": request.container, "CgroupPermissions": request.access}
        for request in map(parse_device, texts)
    ]


def _ulimits(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Docker says no limit as -1."""
    from minidock.model.ulimits import UNLIMITED, parse_ulimits

    def number(value: int) -> int:
        return -1 if value == UNLIMITED else value

    return [
        {"Name": limit.name, "Hard": number(limit.hard), "Soft": number(limit.soft)} for limit in parse_ulimits(texts)
    ]


def _network(record: Record, state: State) -> dict[str, Any]:
    network = record.settings.network
    endpoint = {"IPAddress": state.address if state.status in (RUNNING, PAUSED) else ""}
    return {**endpoint, "Ports": dict.fromkeys(record.exposed_ports), "Networks": {network: dict(endpoint)}}
