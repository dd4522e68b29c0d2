"""Bringing a container to rest: after its process has ended, or in place of a monitor that was killed.

The caller holds the container's lock. The order is chosen so that SIGKILL anywhere leaves something that the next
command recognises and finishes (``status``):

1. the exit is recorded (durably unless the record is about to go) - killed before: the record says running and the
   lock is free, so the monitor's death is recorded as the exit;
2. the cgroup, the writable layer (unless kept), the lease and last the run directory go - killed here: the run
   directory is still there, so everything from 2 on is done again;
3. with ``--rm`` the anonymous volumes go, then the record - killed here: an exited container with ``--rm`` is left.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from minidock.containers import leftovers
from minidock.errors import MinidockError, NoSuchContainerError, NoSuchVolumeError, StoreError
from minidock.model.container import CREATED, EXITED

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.containers.parts import Parts
    from minidock.model.container import Record, State


def come_to_rest(parts: Parts, record: Record, state: State) -> None:
    """Record ``state`` (exited, or created after a failed start) and remove all that the start has made.

    A ``--rm`` container is removed with it: it is at rest also when its start has failed.
    """
    remove = record.settings.auto_remove
    if remove:
        state = state._replace(status=EXITED)
    recorded = _record(parts, record, state, sync=not remove)
    clean = take_down(parts, record, discard=state.status == EXITED and not record.settings.keep)
    if not recorded:
        # What has just been removed may have made room on a full disk.
        parts.containers.write_state(record.id, state, sync=not remove)
    if clean:
        leftovers.remove_run_dir(parts.root, record.id)
    if remove:
        remove_record(parts, record)


def _record(parts: Parts, record: Record, state: State, *, sync: bool) -> bool:
    try:
        parts.containers.write_state(record.id, state, sync=sync)
    except StoreError:
        return False
    return True


def take_down(parts: Parts, record: Record, *, discard: bool) -> bool:
    """Remove cgroup, writable layer (with ``discard``) and lease; one that resists does not keep the others.

    False when something is left; the run directory has to stay then, so that the next command tries again.
    """
    directory = parts.root.container_dir(record.id)
    failures: list[str] = []
    steps: list[Callable[[], None]] = [
        partial(leftovers.remove_cgroup, record.id),
        partial(leftovers.release_lease, parts.root, record.id),
    ]
    if discard:
        steps.append(partial(leftovers.remove_writable, directory))
    for step in steps:
        try:
            step()
        except OSError as error:
            failures.append(f"{error.filename or record.id}: {error.strerror}")
    if failures:
        parts.log.warning(f"container {record.id[:12]} leaves something behind: {'; '.join(failures)}")
    return not failures


def remove_record(parts: Parts, record: Record, *, volumes: bool = True) -> None:
    """Remove the container's anonymous volumes, unless another container refers to them, and its record."""
    if volumes and record.anonymous:
        remove_anonymous(parts, record)
    try:
        parts.containers.remove(record.id)
    except NoSuchContainerError:
        return


def remove_anonymous(parts: Parts, record: Record) -> None:
    for name in record.anonymous:
        try:
            parts.volumes.remove(name, users=partial(users_of, parts, name, but=record.id))
        except NoSuchVolumeError:
            continue
        except MinidockError as error:
            parts.log.debug(f"volume {name} stays: {error}")


def users_of(parts: Parts, volume: str, *, but: str = "") -> list[str]:
    """The IDs of the containers, running or not, that refer to a volume."""
    return [
        record.id
        for record, _ in parts.containers.list()
        if record.id != but and any(m.type == "volume" and m.source == volume for m in record.mounts)
    ]


def exited(state: State, exit_code: int, error: str = "") -> State:
    """The state of a container that has just ended."""
    return _without_process(state)._replace(status=EXITED, exit_code=exit_code, error=error, finished=time.time_ns())


def failed_start(state: State, error: str, exit_code: int) -> State:
    """The state after a start that failed: as it was before, with the reason."""
    status = state.status if state.status in {CREATED, EXITED} else EXITED
    return _without_process(state)._replace(status=status, exit_code=exit_code, error=error)


def _without_process(state: State) -> State:
    return state._replace(pid=0, start_time=0, monitor_pid=0, address="")
