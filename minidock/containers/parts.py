"""What the verbs of this unit work on, handed down in one value."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from minidock.log import Log
    from minidock.rootfs import Rootfs
    from minidock.store.containers import ContainerStore
    from minidock.store.layout import DataRoot
    from minidock.volumes.volumes import Volumes


class Parts(NamedTuple):
    """The stores of one data root, and where notices go. ``rootfs`` is None where no container is made or started."""

    root: DataRoot
    containers: ContainerStore
    volumes: Volumes
    rootfs: Rootfs | None
    log: Log
