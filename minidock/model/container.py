"""Containers as values: what was asked for, what is recorded, what state it is in, and their JSON forms."""

from __future__ import annotations

from typing import Any, NamedTuple

from minidock.errors import CorruptObjectError
from minidock.model.mounts import Mount

CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
EXITED = "exited"


class Settings(NamedTuple):
    """What the flags of ``run`` and ``create`` say. Empty or None means: not given, the image or the default decides.

    ``env`` holds ``NAME=value`` texts; ``memory`` sizes are bytes; ``stop_timeout`` is seconds, -1 for ever. What
    ``--ulimit``, ``--sysctl``, ``--device``, ``--device-cgroup-rule`` and ``--group-add`` say is kept as it was given.
    """

    image: str
    command: tuple[str, ...] = ()
    name: str = ""
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    entrypoint: tuple[str, ...] | None = None
    hostname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    read_only: bool = False
    keep: bool = False
    auto_remove: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    network: str = "bridge"
    init: bool = False
    stop_signal: str = ""
    stop_timeout: int = 10
    shm_size: int = 67108864
    tty: bool = False
    interactive: bool = False
    ulimits: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()


class Record(NamedTuple):
    """A container as ``create`` wrote it; it never changes afterwards.

    ``args`` is the whole argument vector (entrypoint and command), ``env`` the environment but HOSTNAME, HOME, TERM;
    ``diff_ids`` are the image's layers, lowest first; ``mounts`` are in mount order with every volume named;
    ``anonymous`` are the volumes that belong to this container alone. ``created`` is nanoseconds since the epoch.
    """

    id: str
    name: str
    created: int
    image: str
    image_id: str
    diff_ids: tuple[str, ...]
    driver: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    user: str
    hostname: str
    labels: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    anonymous: tuple[str, ...]
    exposed_ports: tuple[str, ...]
    stop_signal: str
    settings: Settings


class State(NamedTuple):
    """How a container is. Times are nanoseconds since the epoch, 0 for never; ``pid`` is the host's, 0 when at rest.

    ``start_time`` is field 22 of /proc/PID/stat and tells a recycled PID apart; ``error`` is one sentence or empty.
    """

    status: str = CREATED
    pid: int = 0
    start_time: int = 0
    monitor_pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started: int = 0
    finished: int = 0
    address: str = ""
    boot_id: str = ""


_RECORD_FIELDS = frozenset(Record._fields)
_SETTINGS_FIELDS = frozenset(Settings._fields)
_MOUNT_FIELDS = frozenset(Mount._fields)


def record_to_json(record: Record) -> dict[str, Any]:
    """The record as a JSON object, which ``record_from_json`` reads."""
    value = record._asdict()
    value["labels"] = dict(record.labels)
    value["mounts"] = [mount_to_json(m) for m in record.mounts]
    settings = record.settings._asdict()
    settings["labels"] = dict(record.settings.labels)
    settings["mounts"] = [mount_to_json(m) for m in record.settings.mounts]
    value["settings"] = settings
    return value


def mount_to_json(mount: Mount) -> dict[str, Any]:
    """A mount as a JSON object; labels as an object of their own."""
    value = mount._asdict()
    value["labels"] = dict(mount.labels)
    return value


def record_from_json(value: dict[str, Any]) -> Record:
    """Read a record; raise CorruptObjectError if a field is missing, or what others go by is no text.

    Fields of a newer minidock are passed over.
    """
    try:
        fields = _known(value, _RECORD_FIELDS)
        fields["labels"] = tuple(value["labels"].items())
        fields["mounts"] = tuple(_mount_from_json(m) for m in value["mounts"])
        settings = _known(value["settings"], _SETTINGS_FIELDS)
        settings["labels"] = tuple(value["settings"]["labels"].items())
        settings["mounts"] = tuple(_mount_from_json(m) for m in value["settings"]["mounts"])
        fields["settings"] = Settings(**settings)
        record = Record(**fields)
        for text in (record.id, record.name, record.image_id, *record.diff_ids):
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is not text")
        return record
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptObjectError(f"the container's record is damaged: {error}") from None


def state_from_json(value: dict[str, Any]) -> State:
    """Read a state; unknown fields are passed over, missing ones take their default."""
    return State(**{name: value[name] for name in State._fields if name in value})


def _mount_from_json(value: dict[str, Any]) -> Mount:
    fields = _known(value, _MOUNT_FIELDS)
    fields["labels"] = tuple(value.get("labels", {}).items())
    return Mount(**fields)


def _known(value: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """The members of those names, lists as tuples. Every listing does this for every container: it has to be quick."""
    return {name: tuple(v) if v.__class__ is list else v for name, v in value.items() if name in names}
