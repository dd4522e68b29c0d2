"""The truth about containers, and putting right what a dead monitor left.

A container's lock is held as long as its monitor lives. A record that says running while the lock is free, a run
directory without an owner, a writable layer of a container at rest, and a ``--rm`` container that has ended or that its
maker was about to start are leftovers of something that was killed (``monitor``, ``rest``, ``claim``). Every command
that looks at containers clears them up here. Clearing up is idempotent and may be killed at any point: what is left
then is a leftover again.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from minidock.containers import claim, leftovers, rest
from minidock.errors import CorruptObjectError, MinidockError, NoSuchContainerError
from minidock.model.container import EXITED, PAUSED, RUNNING
from minidock.store import locks

if TYPE_CHECKING:
    from minidock.containers.parts import Parts
    from minidock.model.container import Record, State

MONITOR_KILLED = "its monitor was killed"
RESTARTED = "the host was restarted while it ran"
_KILLED = 137
_DEATH_SECONDS = 10.0


class _Now(NamedTuple):
    """What is the same for all containers: the names of the run directories, and the boot."""

    started: frozenset[str]
    boot_id: str


def list_all(parts: Parts) -> list[tuple[Record, State]]:
    """Every container with its true state, newest first; leftovers are cleared up on the way.

    Never fails for a container that vanishes or is damaged meanwhile.
    """
    found = []
    now = _now(parts)
    for record, state in parts.containers.list():
        try:
            truth = _truth(parts, record, state, now)
        except (NoSuchContainerError, CorruptObjectError):
            continue
        except MinidockError as error:
            parts.log.warning(f"cannot clear up after container {record.name}: {error}")
            truth = state
        if truth is not None:
            found.append((record, truth))
    try:
        parts.containers.drop_lost_names()
    except OSError as error:
        parts.log.warning(f"cannot clear up the names of containers that are gone: {error.strerror}")
    return found


def check(parts: Parts, container_id: str) -> tuple[Record, State]:
    """One container with its true state. Raises NoSuchContainerError, CorruptObjectError."""
    record = parts.containers.load(container_id)
    truth = _truth(parts, record, parts.containers.state(container_id), _now(parts))
    if truth is None:
        raise NoSuchContainerError(f"no such container: {record.name}")
    return record, truth


def find(parts: Parts, name_or_id: str) -> tuple[Record, State]:
    """The container of that name, ID or unique prefix, with its true state. Raises NoSuchContainerError."""
    return check(parts, parts.containers.resolve(name_or_id))


def clear_up(parts: Parts, record: Record) -> State | None:
    """For the holder of the container's lock: put right what a dead monitor left. None when the container goes with it.

    The state is read again, since the container may have ended properly before the lock was taken.
    """
    try:
        state = parts.containers.state(record.id)
    except NoSuchContainerError:
        return None
    now = _now(parts)
    if not _needs_look(parts, record, state, now):
        return state
    was_running = state.status in {RUNNING, PAUSED}
    same_boot = state.boot_id == now.boot_id
    if was_running and same_boot:
        try:
            leftovers.kill_processes(state, record.id)
        except OSError as error:
            parts.log.warning(f"cannot kill what is left of container {record.name}: {error}")
    if was_running:
        state = rest.exited(state, _KILLED, MONITOR_KILLED if same_boot else RESTARTED)
    rest.come_to_rest(parts, record, state)
    return None if record.settings.auto_remove else state


def take_lock(parts: Parts, container_id: str, *, seconds: float) -> int | None:
    """The container's lock, waited for; None when it is still held after ``seconds``. Raises FileNotFoundError."""
    deadline = time.monotonic() + seconds
    while (lock := locks.try_exclusive(parts.root.container_lock(container_id))) is None:
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)
    return lock


def is_live(parts: Parts, container_id: str) -> bool:
    """True while the container's monitor lives."""
    try:
        return locks.is_held(parts.root.container_lock(container_id))
    except OSError:
        return False


def _now(parts: Parts) -> _Now:
    return _Now(leftovers.started(parts.root), parts.root.boot_id())


def _truth(parts: Parts, record: Record, state: State, now: _Now) -> State | None:
    """The state, put right where it is a dead monitor's; None when the container is gone with it."""
    if not _needs_look(parts, record, state, now):
        return state
    try:
        lock = locks.try_exclusive(parts.root.container_lock(record.id))
        if lock is None and state.monitor_pid and leftovers.is_dying(state.monitor_pid):
            # A process that is killed closes its sockets, by which others know, an instant before its lock.
            lock = take_lock(parts, record.id, seconds=_DEATH_SECONDS)
    except FileNotFoundError:
        return None
    if lock is None:
        # Somebody is at work: a monitor, or another command that clears up. What it has written by now is the truth.
        return parts.containers.state(record.id)
    try:
        return clear_up(parts, record)
    finally:
        os.close(lock)


def _needs_look(parts: Parts, record: Record, state: State, now: _Now) -> bool:
    """Whether something may be left of it: a run directory is there until everything that a start has made is gone."""
    if record.id in now.started or state.status in {RUNNING, PAUSED}:
        return True
    directory = parts.root.container_dir(record.id)
    if state.status != EXITED:
        return record.settings.auto_remove and claim.is_abandoned(directory)
    if record.settings.auto_remove:
        return True
    # A reboot takes the run directory along.
    return state.boot_id != now.boot_id and not record.settings.keep and leftovers.has_writable(directory)
