"""What uninstalling takes off the host: all that minidock has set up in the kernel, nothing that it stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.errors import ConflictError, HostError
from minidock.kernel import cgroups
from minidock.kernel.pinned import Pinned
from minidock.network.bridge import BridgeNetwork
from minidock.store.files import remove_tree

if TYPE_CHECKING:
    from minidock.engine.base import EngineBase


def teardown(engine: EngineBase) -> None:
    """Remove the bridge, nftables rules, parent cgroups and the folder under /run; the next start makes them again.

    Raises ConflictError while a container of this data root runs, NetworkError, HostError.
    """
    from minidock.engine import listing

    running = listing.summaries(engine, all=False)
    if running:
        raise ConflictError(f"container {running[0].name} is running", hint="stop all containers first")
    BridgeNetwork(state_dir=engine.root.networks, log=engine.log).uninstall()
    try:
        pinned = Pinned(f"{engine.root.run}/layers")
        with pinned.lock():
            pinned.unpin()
        remove_tree(engine.root.run)
    except OSError as error:
        raise HostError(f"cannot remove {error.filename}: {error.strerror}") from None
    try:
        cgroups.remove_parent()
    except OSError as error:
        raise HostError(f"cannot remove the cgroup {error.filename}: {error.strerror}") from None
