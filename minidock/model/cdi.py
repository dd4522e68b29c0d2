"""The Container Device Interface: the names of devices, and what a specification says of them; no I/O.

Sources: CDI, SPEC.md 1.1; Dockerfile reference, "RUN --device".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import CorruptObjectError, UsageError
from minidock.model.devices import is_taken
from minidock.model.oci import decode_object

if TYPE_CHECKING:
    from collections.abc import Mapping

# In a device's or a specification's annotations: the word by which RUN may ask for all of its kind.
CLASS = "org.mobyproject.buildkit.device.class"
ANY = "*"
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]/[A-Za-z][A-Za-z0-9_.-]*")
_DEVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FORM = "the form is VENDOR/CLASS=NAME, VENDOR/CLASS=* for all, or the word of a class, then perhaps ,required"
_EDITS = ("env", "deviceNodes", "mounts", "additionalGids")
_NOT_DONE = {"hooks": "hooks", "intelRdt": "cache allocation (intelRdt)", "netDevices": "network devices"}


class Wanted(NamedTuple):
    """What RUN asks for: ``kind`` and ``name`` (``*`` for all), or the word of a class as ``name`` alone. Without
    ``required`` the command runs where there is none."""

    kind: str
    name: str
    required: bool = False

    def text(self) -> str:
        """The device as people write it."""
        return f"{self.kind}={self.name}" if self.kind else self.name


class Edits(NamedTuple):
    """What a container gets with a device: variables, nodes and mounts as the specification has them, groups, and what
    of it minidock does not do, in words."""

    env: tuple[str, ...] = ()
    nodes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    groups: tuple[int, ...] = ()
    not_done: tuple[str, ...] = ()


class Specification(NamedTuple):
    """One file: the devices of a kind with their edits, the edits that come with any of them, and the class of each."""

    kind: str
    devices: dict[str, Edits]
    common: Edits
    classes: dict[str, str]


def parse_wanted(text: str) -> Wanted:
    """Read ``RUN --device``: ``[name=]DEVICE[,required[=BOOL]]``. Raises UsageError, naming the text."""
    name, required = "", False
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if key.lower() == "required":
            if value not in ("true", "false", "1", "0", ""):
                raise UsageError(f"invalid device {text!r}: required is true or false", hint=_FORM)
            required = value not in ("false", "0")
        elif key.lower() == "name" and equals and not name:
            name = value
        elif not name:
            name = field
        else:
            raise UsageError(f"invalid device {text!r}: {field!r} makes no sense", hint=_FORM)
    kind, equals, device = name.partition("=")
    if equals and _KIND.fullmatch(kind) and (device == ANY or _DEVICE.fullmatch(device)):
        return Wanted(kind, device, required)
    if not equals and _WORD.fullmatch(name):
        return Wanted("", name, required)
    raise UsageError(f"invalid device {text!r}", hint=_FORM)


def parse_specification(data: bytes, *, where: str) -> Specification:
    """Read one file, in JSON; ``where`` is its path. Raises CorruptObjectError for what is none."""
    raw = decode_object(data, what=f"device specification {where}")
    kind, devices = raw.get("kind"), raw.get("devices")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind) or not isinstance(devices, list):
        raise CorruptObjectError(f"the device specification {where} has no valid kind and list of devices")
    found: dict[str, Edits] = {}
    classes: dict[str, str] = {}
    for device in devices:
        name = device.get("name") if isinstance(device, dict) else None
        if not isinstance(name, str) or not _DEVICE.fullmatch(name) or name in found:
            raise CorruptObjectError(f"the device specification {where} has a device without a name of its own")
        found[name] = _edits(device, where)
        classes[name] = _class(device) or _class(raw)
    return Specification(kind, found, _edits(raw, where), classes)


def joined(parts: list[Edits]) -> Edits:
    """Several edits as one, in their order; what is said twice is done once."""
    return Edits(*(tuple(_once([value for part in parts for value in part[index]])) for index in range(5)))


def _once(values: list[Any]) -> list[Any]:
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _class(raw: Mapping[str, Any]) -> str:
    annotations = raw.get("annotations")
    return str(annotations.get(CLASS, "")) if isinstance(annotations, dict) else ""


def _edits(raw: Mapping[str, Any], where: str) -> Edits:
    edits = raw.get("containerEdits") or {}
    if not isinstance(edits, dict) or not all(isinstance(edits.get(key) or [], list) for key in _EDITS):
        raise CorruptObjectError(f"the device specification {where} has edits of the wrong type")
    env, nodes, mounts, groups = (tuple(edits.get(key) or ()) for key in _EDITS)
    if not all(isinstance(text, str) and text.partition("=")[0] and "=" in text for text in env):
        raise CorruptObjectError(f"the device specification {where} has a variable without a name")
    for node in nodes:
        _check_path(node, "path", where)
        if not node["path"].startswith("/dev/") or is_taken(node["path"]) or "/../" in f"{node['path']}/":
            raise CorruptObjectError(f"the device specification {where} has a device at {node['path']!r}")
    for mount in mounts:
        _check_path(mount, "containerPath", where)
        _check_path(mount, "hostPath", where)
    if not all(isinstance(group, int) and group >= 0 for group in groups):
        raise CorruptObjectError(f"the device specification {where} has a group that is no number")
    return Edits(env, nodes, mounts, groups, tuple(text for key, text in _NOT_DONE.items() if edits.get(key)))


def _check_path(value: object, key: str, where: str) -> None:
    path = value.get(key) if isinstance(value, dict) else None
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise CorruptObjectError(f"the device specification {where} has a {key} that is no absolute path")
