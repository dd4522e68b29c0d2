"""What the verbs of this unit work on, handed down in one value.

In reading order: ``create`` (with ``merge`` and ``claim``) makes a record; ``lifecycle`` has the verbs. A start
forks a ``monitor``, which calls ``launching`` for the process and then relays (``relay``, ``clients``, ``frames``,
``logs``, ``control``), as a small process where nobody is attached (``lean``), until the ``ending``. ``attach`` is the
side of the clients. ``rest`` takes a container down, ``leftovers`` knows what lies outside of its directory, and
``status`` tells the truth about containers and finishes what was killed.
"""

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
