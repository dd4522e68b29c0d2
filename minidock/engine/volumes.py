"""The verbs on volumes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from minidock.containers import rest, status
from minidock.containers.logs import format_time
from minidock.engine.listings import Pruned
from minidock.engine.parts import make_parts
from minidock.engine.settings import pairs
from minidock.errors import ConflictError, NoSuchVolumeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.engine.base import EngineBase
    from minidock.volumes.volumes import Volume


def create(engine: EngineBase, name: str, *, labels: Mapping[str, str] | Sequence[str]) -> Volume:
    """The volume of that name, made where it is missing."""
    return make_parts(engine).volumes.create(name, labels=pairs(labels))


def volumes(engine: EngineBase, *, dangling: bool | None) -> list[Volume]:
    """All volumes; ``dangling`` says whether those that no container refers to, or the others."""
    parts = make_parts(engine)
    found = list(parts.volumes.list())
    if dangling is None:
        return found
    used = _used(engine)
    return [volume for volume in found if (volume.name not in used) == dangling]


def inspect(engine: EngineBase, name: str) -> dict[str, Any]:
    """One volume in docker's words."""
    volume = make_parts(engine).volumes.get(name)
    return {
        "CreatedAt": format_time(volume.created),
        "Driver": "local",
        "Labels": dict(volume.labels) or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": None,
        "Scope": "local",
    }


def remove(engine: EngineBase, name: str, *, force: bool) -> None:
    """Remove a volume that no container refers to; with ``force`` one that is not there is fine."""
    parts = make_parts(engine)
    try:
        parts.volumes.remove(name, users=lambda: rest.users_of(parts, name))
    except NoSuchVolumeError:
        if not force:
            raise


def prune(engine: EngineBase, *, all: bool) -> Pruned:  # noqa: A002 - the command's word
    """Remove what no container refers to. One that comes into use meanwhile stays."""
    parts = make_parts(engine)
    used = _used(engine)
    names: list[str] = []
    freed = 0
    for volume in parts.volumes.list():
        if volume.name in used or not (all or volume.anonymous):
            continue
        size = disk_usage(volume.mountpoint)
        try:
            parts.volumes.remove(volume.name, users=lambda name=volume.name: rest.users_of(parts, name))  # type: ignore[misc]
        except (ConflictError, NoSuchVolumeError):
            continue
        names.append(volume.name)
        freed += size
    return Pruned(tuple(names), freed)


def _used(engine: EngineBase) -> set[str]:
    """The names of the volumes that containers refer to, running or not."""
    return {
        mount.source
        for record, _ in status.list_all(make_parts(engine))
        for mount in record.mounts
        if mount.type == "volume"
    }


def disk_usage(path: str) -> int:
    """The bytes that the files below a directory take on disk; a hard link counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for directory, _, names in os.walk(path):
        for name in (".", *names):
            try:
                found = os.lstat(f"{directory}/{name}")
            except OSError:
                continue
            if stat.S_ISDIR(found.st_mode) or (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total
