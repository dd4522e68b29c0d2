"""The end of a container as its monitor sees it: the exit code, the record, the take-down, the clients."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.containers import rest
from minidock.containers.parts import Parts
from minidock.errors import MinidockError
from minidock.kernel import process
from minidock.log import Log
from minidock.store.containers import ContainerStore
from minidock.store.layout import DataRoot
from minidock.volumes.volumes import Volumes

if TYPE_CHECKING:
    from minidock.containers.relay import Relay


def parts_of(root: str, run: str) -> Parts:
    """What a small monitor needs at the end: everything but root file systems."""
    data_root = DataRoot(root, run=run)
    return Parts(data_root, ContainerStore(data_root), Volumes(data_root), None, Log())


def end(parts: Parts, container_id: str, relay: Relay, lock: int) -> None:
    """After ``relay.run``: record the exit, take everything down, free the lock, then let the clients go.

    The clients learn the exit last, so that whoever hears of it finds nothing left.
    """
    code = process.wait_pidfd(relay.pidfd)
    assert code is not None, "the wait blocks"
    status = code if code >= 0 else 128 - code
    relay.close()
    error = ""
    try:
        record = parts.containers.load(container_id)
        state = parts.containers.state(container_id)
        rest.come_to_rest(parts, record, rest.exited(state, status))
    except (MinidockError, OSError) as failure:
        # The record cannot be read or written (a full disk); the next command that looks at it tries again.
        error = str(failure)
    os.close(lock)
    relay.finish(status, error)
