"""Devices by their CDI names: what the host's specifications give a container, as the runtime spec has it.

Specifications are JSON files in the folders of ``FOLDERS``; a later folder's devices stand in for those of an earlier
one. YAML is not read. Source: CDI, SPEC.md 1.1.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import CorruptObjectError, HostError
from minidock.model.cdi import ANY, Edits, joined, parse_specification
from minidock.model.devices import device_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from minidock.model.cdi import Wanted

FOLDERS = ("/etc/cdi", "/var/run/cdi")
_MOST = 4 << 20


class Given(NamedTuple):
    """What a container gets: ``nodes`` as the spec's ``linux.devices``, ``rules`` as its ``linux.resources.devices``,
    ``mounts`` as its own, ``groups`` as texts; ``told`` are sentences for people."""

    env: tuple[str, ...] = ()
    nodes: tuple[dict[str, Any], ...] = ()
    rules: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    groups: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


class _Place(NamedTuple):
    """A device in the folders: the file that it is of, its edits, those of its whole file, and its class."""

    path: str
    edits: Edits
    common: Edits
    device_class: str


def find_devices(wanted: Sequence[Wanted], *, folders: Iterable[str] = FOLDERS) -> Given:
    """What the host gives for these wishes; a file that is no specification is told of and passed over. Raises
    HostError for a required device that is not there, for one that two files of a folder claim, and for what the host
    lacks."""
    told: list[str] = []
    known, yaml = _read_all(folders, told)
    chosen: dict[str, _Place] = {}
    for wish in wanted:
        found = {name: place for name, place in known.items() if _fits(name, place, wish)}
        if not found:
            _miss(wish, yaml, told)
        chosen |= found
    for name, place in chosen.items():
        told += [
            f"{what} of the device {name} are left out" for what in (*place.edits.not_done, *place.common.not_done)
        ]
    commons = {place.path: place.common for place in chosen.values()}
    edits = joined([*(place.edits for place in chosen.values()), *commons.values()])
    nodes = [_node(node) for node in edits.nodes]
    rules = [
        {
            "allow": True,
            **{key: node[key] for key in ("type", "major", "minor")},
            "access": str(raw.get("permissions") or "rwm"),
        }
        for node, raw in zip(nodes, edits.nodes, strict=True)
    ]
    mounts = tuple(_mount(mount) for mount in edits.mounts)
    return Given(edits.env, tuple(nodes), tuple(rules), mounts, tuple(map(str, edits.groups)), tuple(told))


def _fits(name: str, place: _Place, wish: Wanted) -> bool:
    if not wish.kind:
        return place.device_class == wish.name
    return name == wish.text() or (wish.name == ANY and name.startswith(f"{wish.kind}="))


def _miss(wish: Wanted, yaml: Sequence[str], told: list[str]) -> None:
    if not wish.required:
        told.append(f"there is no device {wish.text()}: the command runs without it")
        return
    hint = f"specifications are JSON files in {' and '.join(FOLDERS)}"
    if yaml:
        hint += f"; {yaml[0]} is in YAML, which is not read"
    raise HostError(f"there is no device {wish.text()} on this host", hint=hint)


def _read_all(folders: Iterable[str], told: list[str]) -> tuple[dict[str, _Place], list[str]]:
    """The devices by their whole names, and the files that are in YAML."""
    known: dict[str, _Place] = {}
    yaml: list[str] = []
    for folder in folders:
        here: dict[str, _Place] = {}
        for path in _files(folder):
            if path.endswith((".yaml", ".yml")):
                yaml.append(path)
            if not path.endswith(".json"):
                continue
            try:
                with open(path, "rb") as file:
                    spec = parse_specification(file.read(_MOST), where=path)
            except CorruptObjectError as error:
                told.append(error.message)
                continue
            for name, edits in spec.devices.items():
                whole = f"{spec.kind}={name}"
                if whole in here:
                    raise HostError(
                        f"the device {whole} is in {here[whole].path} and in {path}", hint="remove one of the files"
                    )
                here[whole] = _Place(path, edits, spec.common, spec.classes[name])
        known |= here
    return known, yaml


def _files(folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in sorted(os.listdir(folder))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _node(raw: dict[str, Any]) -> dict[str, Any]:
    """One of the spec's ``linux.devices``: what the specification leaves out is as the host's own node."""
    host = str(raw.get("hostPath") or raw["path"])
    try:
        status = os.stat(host)
    except OSError as error:
        raise HostError(f"cannot use the device {host}: {(error.strerror or '').lower()}") from None
    node = device_node(raw["path"], status)
    if node is None:
        raise HostError(f"cannot use the device {host}: it is not a device")
    return node | {key: raw[key] for key in ("fileMode", "uid", "gid") if isinstance(raw.get(key), int)}


def _mount(raw: dict[str, Any]) -> dict[str, Any]:
    kind = str(raw.get("type") or "bind")
    options = [str(option) for option in raw.get("options") or ()]
    if kind in ("bind", "none"):
        kind = "bind"
        if not os.path.exists(raw["hostPath"]):
            raise HostError(f"cannot mount {raw['hostPath']}, which a device needs: it is not there")
        if not {"bind", "rbind"} & {*options}:
            options.insert(0, "rbind")
    return {"destination": raw["containerPath"], "type": kind, "source": raw["hostPath"], "options": options}
