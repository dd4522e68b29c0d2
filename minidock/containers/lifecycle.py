"""The verbs on a container: start, stop, kill, pause, unpause, wait, remove.

They look at the truth first (``status``), ask the monitor, and wait for it without holding any lock. Each may be killed
and repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from minidock import errors
from minidock.containers import attach, leftovers, rest, status
from minidock.containers.signals import parse_signal
from minidock.errors import ConflictError, ContainerStartError, CorruptObjectError, NoSuchContainerError
from minidock.kernel import namespaces, process
from minidock.model.container import EXITED, PAUSED, RUNNING

if TYPE_CHECKING:
    from minidock.containers.launching import Launch
    from minidock.containers.parts import Parts
    from minidock.kernel.process import Child
    from minidock.model.container import Record

_KILL_SECONDS = 5.0
_LOCK_SECONDS = 15.0
_WINSIZE = (24, 80)
_SIGKILL = 9


class Running(NamedTuple):
    """A container that was just started: its monitor, a child of the caller, and an attached connection or -1."""

    container_id: str
    monitor: Child
    connection: int

    def close(self) -> None:
        """Let go of both; the container goes on."""
        self.monitor.close()
        if self.connection >= 0:
            os.close(self.connection)
            attach.release_signals()


def start(
    parts: Parts,
    container_id: str,
    *,
    attached: bool = False,
    winsize: tuple[int, int] = _WINSIZE,
    launch: Launch | None = None,
) -> Running | None:
    """Start a container: returns when its command has been executed, or None when it is running already.

    The caller has one thread; a child of it becomes the monitor. With ``attached`` the result holds a connection that
    gets every byte of output from the first on, and whose end of input ends the container's. SIGINT and its kin are
    then held back from the monitor's birth until an ``attach.Session`` passes them on or the result is closed, so that
    none is lost in between. Raises ContainerStartError (125) or its kin (126, 127) and what else keeps a container from
    starting; the container is then as it was.
    """
    import _socket

    from minidock.containers import launching, monitor

    record, state = status.check(parts, container_id)
    if state.status in {RUNNING, PAUSED}:
        return None
    if state.status == EXITED and not record.settings.keep:
        parts.log.notice(f"container {record.name} begins on a fresh layer: what it had written is gone (see --keep)")
    ours, theirs = -1, -1
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        if attached:
            pair = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
            ours, theirs = (end.detach() for end in pair)
        order = monitor.Order(write_end, theirs, winsize, launch or launching.launch)
        child = process.spawn(lambda: monitor.run(parts, container_id, order), flags=namespaces.CLONE_NEWPID)
        if attached:
            attach.hold_signals()
        os.close(write_end)
        write_end = -1
        failure = _read_answer(read_end, record)
        if failure is not None:
            child.wait()
            child.close()
            if isinstance(failure, ConflictError) and parts.containers.state(container_id).status in {RUNNING, PAUSED}:
                # Another command was quicker.
                return None
            raise failure
        running, ours = Running(container_id, child, ours), -1
        return running
    finally:
        for fd in (read_end, write_end, theirs, ours):
            if fd >= 0:
                os.close(fd)
        if ours >= 0:
            attach.release_signals()


def finish(running: Running) -> None:
    """After the EXIT frame, or a lost connection: wait for the monitor's own end, so that nothing is left of it."""
    running.monitor.wait()
    running.close()


def stop(parts: Parts, container_id: str, *, signal: str = "", timeout: int | None = None) -> None:
    """Ask a container to end, and kill it when ``timeout`` seconds (its own by default, -1 for ever) have passed.

    ``signal`` takes the place of its own stop signal. One that is at rest already is fine; a paused one is let go on.
    Raises NoSuchContainerError, ConflictError, UsageError for a bad signal.
    """
    record, state = status.check(parts, container_id)
    if state.status not in {RUNNING, PAUSED}:
        return
    seconds = record.settings.stop_timeout if timeout is None else timeout
    number = parse_signal(signal or record.stop_signal)
    with _ending(parts, container_id):
        attach.request(parts.root, container_id, f"signal {number}")
        if state.status == PAUSED:
            attach.request(parts.root, container_id, "unpause")
    if not attach.wait_for_end(parts.root, container_id, timeout=None if seconds < 0 else float(seconds)):
        if not record.settings.init:
            parts.log.notice(
                f"container {record.name} did not end within {seconds} s of signal {number} and is killed: "
                "a first process without a handler ignores it (see run --init)"
            )
        kill_hard(parts, container_id)
    _settle(parts, container_id)


def kill(parts: Parts, container_id: str, *, signal: str = "KILL") -> None:
    """Send a signal to the container's first process; KILL waits until the container is at rest.

    Raises ConflictError when it is not running, UsageError for a bad signal.
    """
    number = parse_signal(signal)
    record, state = status.check(parts, container_id)
    if state.status not in {RUNNING, PAUSED}:
        raise _not_running(record)
    if number == _SIGKILL:
        kill_hard(parts, container_id)
        _settle(parts, container_id)
    else:
        attach.request(parts.root, container_id, f"signal {number}")


def kill_hard(parts: Parts, container_id: str) -> None:
    """SIGKILL, and wait for the take-down; a monitor that does not answer is killed, and the container with it."""
    with contextlib.suppress(ConflictError):
        attach.request(parts.root, container_id, f"signal {_SIGKILL}", timeout=_KILL_SECONDS)
    if attach.wait_for_end(parts.root, container_id, timeout=_KILL_SECONDS):
        return
    with contextlib.suppress(ProcessLookupError, NoSuchContainerError):
        _kill_monitor(parts, container_id, parts.containers.state(container_id).monitor_pid)


def _kill_monitor(parts: Parts, container_id: str, pid: int) -> None:
    if not pid:
        return
    pidfd = namespaces.pidfd_open(pid)
    try:
        # The number is still the monitor's as long as the container's lock is held.
        if status.is_live(parts, container_id):
            process.pidfd_send_signal(pidfd, _SIGKILL)
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            poller.poll(_KILL_SECONDS * 1000)
    finally:
        os.close(pidfd)


def pause(parts: Parts, container_id: str) -> None:
    """Freeze every process of a running container. Raises ConflictError."""
    record, state = status.check(parts, container_id)
    if state.status == PAUSED:
        raise ConflictError(f"container {record.name} is already paused")
    if state.status != RUNNING:
        raise _not_running(record)
    attach.request(parts.root, container_id, "pause")


def unpause(parts: Parts, container_id: str) -> None:
    """Let a paused container go on. Raises ConflictError."""
    record, state = status.check(parts, container_id)
    if state.status != PAUSED:
        raise ConflictError(f"container {record.name} is not paused")
    attach.request(parts.root, container_id, "unpause")


def wait(parts: Parts, container_id: str) -> int:
    """Wait until the container is at rest; its exit status, at once when it is at rest already."""
    _, state = status.check(parts, container_id)
    if state.status in {RUNNING, PAUSED}:
        try:
            connection = attach.connect(parts.root, container_id)
        except ConflictError:
            pass
        else:
            try:
                code = attach.exit_status(connection)
            finally:
                os.close(connection)
            if code is not None:
                return code
        _, state = status.check(parts, container_id)
    if state.status == EXITED:
        # The exit is on record a moment before the monitor has taken everything down and lets go of its lock.
        with contextlib.suppress(FileNotFoundError):
            lock = status.take_lock(parts, container_id, seconds=_LOCK_SECONDS)
            if lock is not None:
                os.close(lock)
    return state.exit_code


def remove(parts: Parts, container_id: str, *, force: bool = False, volumes: bool = False) -> None:
    """Remove a container, with its anonymous volumes if asked; with ``force`` a running one is killed first.

    A container whose record is damaged is removed as well. Raises ConflictError, NoSuchContainerError.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    lock = None
    try:
        while lock is None:
            # Each time around: another command may have started it meanwhile.
            record = _not_running_any_more(parts, container_id, force=force)
            lock = status.take_lock(parts, container_id, seconds=0.1)
            if lock is None and time.monotonic() > deadline:
                raise ConflictError(f"container {record.name} is in use by another command", hint="try again")
    except CorruptObjectError:
        _remove_damaged(parts, container_id, force=force)
        return
    except FileNotFoundError:
        return
    try:
        rest.take_down(parts, record, discard=True)
        rest.remove_record(parts, record, volumes=volumes or record.settings.auto_remove)
        leftovers.remove_run_dir(parts.root, container_id)
    finally:
        os.close(lock)


def _not_running_any_more(parts: Parts, container_id: str, *, force: bool) -> Record:
    """The record of a container that is to be removed; with ``force`` a running one is killed."""
    record, state = status.check(parts, container_id)
    if state.status in {RUNNING, PAUSED}:
        if not force:
            raise ConflictError(
                f"container {record.name} is {state.status}", hint="stop it first, or remove it with force (rm -f)"
            )
        kill_hard(parts, container_id)
    return record


def _remove_damaged(parts: Parts, container_id: str, *, force: bool) -> None:
    """Remove a container whose record cannot be read; the volumes that only it knew become prunable."""
    if status.is_live(parts, container_id):
        if not force:
            raise ConflictError(f"container {container_id[:12]} is running", hint="remove it with force (rm -f)")
        with contextlib.suppress(CorruptObjectError):
            kill_hard(parts, container_id)
    try:
        leftovers.remove_cgroup(container_id)
    except OSError as error:
        parts.log.warning(f"the cgroup of container {container_id[:12]} stays: {error.strerror}")
    leftovers.release_lease(parts.root, container_id)
    leftovers.remove_run_dir(parts.root, container_id)
    parts.containers.remove(container_id)


def _settle(parts: Parts, container_id: str) -> None:
    """See that nothing is left; a container that has removed itself is fine."""
    with contextlib.suppress(NoSuchContainerError):
        status.check(parts, container_id)


@contextlib.contextmanager
def _ending(parts: Parts, container_id: str) -> Iterator[None]:
    """A request that fails because the container has just ended is no failure of a verb that wants its end."""
    try:
        yield
    except ConflictError:
        try:
            _, state = status.check(parts, container_id)
        except NoSuchContainerError:
            return
        if state.status in {RUNNING, PAUSED} and status.is_live(parts, container_id):
            raise


def _read_answer(fd: int, record: Record) -> errors.MinidockError | None:
    data = b""
    while not data.endswith(b"\n"):
        piece = os.read(fd, 65536)
        if not piece:
            return ContainerStartError(
                f"cannot start container {record.name}: its monitor was killed before it was running", hint="try again"
            )
        data += piece
    answer = json.loads(data)
    if "error" not in answer:
        return None
    kind = getattr(errors, str(answer["error"]), ContainerStartError)
    failure: errors.MinidockError = kind(str(answer["message"]), hint=str(answer["hint"]))
    failure.exit_status = int(answer["exit_status"])
    return failure


def _not_running(record: Record) -> ConflictError:
    return ConflictError(f"container {record.name} is not running")
