"""A container's monitor: the process that owns its input and output, records its end and takes everything down.

It is a child of the starter made by clone3(CLONE_NEWPID), so that the kernel kills the container with it, and leads a
session of its own. It holds ``containers/<id>/lock`` as long as it lives. What SIGKILL leaves, and who cleans it up:

- before the lock is taken: nothing; the starter reads the end of the acknowledgement pipe and says so;
- with the lock, before ``start.json``: nothing;
- from ``start.json`` to the state "running": the kernel kills what was launched; cgroup, lease and run directory are
  left, and whoever finds the lock free and the run directory there (``status``) removes them; the container is again
  what it was before;
- running: the same, and the state says running with the lock free: ``status`` records exit 137 "its monitor was
  killed", removes the writable layer unless it is kept, and with ``--rm`` the container;
- after the end of the container: see ``rest``;
- while clients take the rest of the output: nothing is left; they see the end of the stream without an EXIT frame and
  look at the record.

A starter that is killed changes nothing: the acknowledgement is written into a pipe that nobody reads.
"""

from __future__ import annotations

import _socket
import fcntl
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.containers import create, ending, launching, lean, leftovers, rest, status
from minidock.containers.clients import Client
from minidock.containers.control import ContainerControl, set_oom_score
from minidock.containers.logs import STDERR, STDOUT, LogWriter
from minidock.containers.relay import Relay
from minidock.errors import ConflictError, ContainerStartError, MinidockError, NoSuchContainerError
from minidock.kernel import process
from minidock.model.container import EXITED, PAUSED, RUNNING

if TYPE_CHECKING:
    from minidock.containers.launching import Launch, Launched
    from minidock.containers.parts import Parts
    from minidock.model.container import Record, State

SOCKET = "attach"

_F_SETPIPE_SZ = 1031
_PIPE_SIZE = 1 << 20
_BACKLOG = 64
_LOCK_SECONDS = 5.0
_SO_SNDBUFFORCE = 32
_SEND_BUFFER = 1 << 20


class Order(NamedTuple):
    """What the starter wants: ``acknowledge`` is a pipe's end, ``client`` an attached connection or -1.

    ``winsize`` is the terminal's first size; ``launch`` is what makes the process.
    """

    acknowledge: int
    client: int
    winsize: tuple[int, int]
    launch: Launch


def run(parts: Parts, container_id: str, order: Order) -> int:
    """The monitor's life, to be run in the new process; returns its exit status."""
    keep = [fd for fd in (order.acknowledge, order.client) if fd >= 0]
    lock = _begin(parts, container_id, keep)
    if isinstance(lock, MinidockError):
        _acknowledge(order.acknowledge, lock)
        return 1
    try:
        started = _start(parts, container_id, order)
    except MinidockError as error:
        os.close(lock)
        _acknowledge(order.acknowledge, error)
        return 1
    _acknowledge(order.acknowledge, None)
    os.close(order.acknowledge)
    _silence()
    if order.client < 0:
        lean.become(root=parts.root.path, run=parts.root.run, container_id=container_id, lock=lock, relay=started)
    started.run()
    ending.end(parts, container_id, started, lock)
    return 0


def _begin(parts: Parts, container_id: str, keep: list[int]) -> int | MinidockError:
    """Leave the starter's world behind and take the container's lock."""
    try:
        process.setsid()
        os.chdir("/")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH, signal.SIGTSTP):
            # The first process of a pid namespace never sees a signal that has its default action, except SIGKILL.
            signal.signal(number, signal.SIG_DFL)
        process.close_from(3, keep=keep)
        lock = _take_lock(parts, container_id)
    except MinidockError as error:
        return error
    except OSError as error:
        return ContainerStartError(f"cannot start the monitor: {error.filename or 'begin'}: {error.strerror}")
    if lock is None:
        return ConflictError(f"container {container_id[:12]} is already running, or another command is at work on it")
    return lock


def _take_lock(parts: Parts, container_id: str) -> int | None:
    """The container's lock; a command that merely looks at the container may hold it for a while, a monitor longer."""
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        while (lock := status.take_lock(parts, container_id, seconds=0.05)) is None:
            running = parts.containers.state(container_id).status in {RUNNING, PAUSED}
            if running or time.monotonic() > deadline:
                return None
    except FileNotFoundError:
        raise NoSuchContainerError(
            f"no such container: {container_id[:12]}", hint="another command has just removed it"
        ) from None
    return lock


def _start(parts: Parts, container_id: str, order: Order) -> Relay:
    """Make the container run and its relay ready; on failure nothing of the start is left. Raises MinidockError."""
    record = parts.containers.load(container_id)
    before = status.clear_up(parts, record)
    if before is None:
        raise NoSuchContainerError(f"no such container: {record.name}", hint="it has just removed itself")
    try:
        leftovers.write_start(parts.root, record.id, lease=None if record.settings.network == "bridge" else "")
        _make_ready(parts, record, before)
        return _launch(parts, record, before, order)
    except Exception as error:
        failure = _as_start_error(record, error)
        _undo(parts, record, before, failure)
        raise failure from error


def _as_start_error(record: Record, error: Exception) -> MinidockError:
    if isinstance(error, MinidockError):
        return error
    if isinstance(error, OSError):
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    else:
        reason = f"{type(error).__name__}: {error}"
    return ContainerStartError(f"cannot start container {record.name}: {reason}")


def _make_ready(parts: Parts, record: Record, state: State) -> None:
    """Volumes that a killed ``create`` owes, the layers, and a fresh writable layer for a container at rest."""
    directory = parts.root.container_dir(record.id)
    if create.volumes_pending(parts, record):
        create.make_volumes(parts, record)
    for mount in record.mounts:
        if mount.type == "bind" and not os.path.lexists(mount.source):
            raise create.missing_bind_source(mount.source)
    if state.status == EXITED and not record.settings.keep:
        leftovers.remove_writable(directory)
    rootfs = parts.rootfs
    assert rootfs is not None, "a start has the root file systems at hand"
    rootfs.ensure(record.diff_ids)
    if not leftovers.has_writable(directory):
        rootfs.prepare(record.diff_ids, directory)


def _launch(parts: Parts, record: Record, before: State, order: Order) -> Relay:
    directory = parts.root.container_dir(record.id)
    log = LogWriter.open(directory)
    listener = _listen(parts.root.container_run_dir(record.id))
    with _Stdio(record) as stdio:
        launched = order.launch(
            launching.Request(parts, record, stdio.stdin[0], stdio.stdout[1], stdio.stderr[1], order.winsize)
        )
        try:
            if record.settings.network == "bridge":
                leftovers.write_start(parts.root, record.id, lease=launched.lease)
            parts.containers.write_state(record.id, _running(before, launched), sync=False)
            set_oom_score(-1000)
            outputs, stdin = stdio.hand_over(launched.console)
        except BaseException:
            process.pidfd_send_signal(launched.pidfd, signal.SIGKILL)
            process.wait_pidfd(launched.pidfd)
            raise
    relay = Relay(
        pidfd=launched.pidfd,
        log=log,
        outputs=outputs,
        stdin=stdin,
        listener=listener,
        control=ContainerControl(
            root=parts.root.path,
            run=parts.root.run,
            container_id=record.id,
            pidfd=launched.pidfd,
            console=launched.console,
        ),
        terminal=record.settings.tty,
    )
    if order.client >= 0:
        relay.add(attached_client(order.client, number=log.count))
    return relay


def attached_client(fd: int, *, number: int) -> Client:
    """The starter's own connection, attached from the first byte on."""
    os.set_blocking(fd, False)
    connection = _socket.socket(fileno=fd)
    try:
        connection.setsockopt(_socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
    except OSError:
        # Without the privilege the socket keeps its usual buffer, and a slow client is served from the log sooner.
        pass
    finally:
        connection.detach()
    return Client(fd, attached=True, number=number, once=True)


def _running(before: State, launched: Launched) -> State:
    from minidock.store.layout import DataRoot

    return before._replace(
        status=RUNNING,
        pid=launched.pid,
        start_time=launched.start_time,
        monitor_pid=int(os.readlink("/proc/self")),
        exit_code=0,
        error="",
        oom_killed=False,
        started=time.time_ns(),
        finished=0,
        address=launched.address,
        boot_id=DataRoot.boot_id(),
    )


def _undo(parts: Parts, record: Record, before: State, error: MinidockError) -> None:
    state = rest.failed_start(before, error.message, error.exit_status)
    try:
        rest.come_to_rest(parts, record, state)
    except MinidockError as second:
        parts.log.warning(f"cannot undo the start of container {record.name}: {second}")


def _listen(run_dir: str) -> int:
    """The attach socket, listening and non-blocking; bound by descriptor, since its path may be too long for one."""
    directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener.detach()
    finally:
        os.close(directory)


class _Stdio:
    """The pipes between monitor and container, as (container's end, monitor's end) or the reverse for input.

    Without ``-i`` the input is /dev/null; with a terminal there are no pipes at all.
    """

    __slots__ = ("stderr", "stdin", "stdout", "terminal")

    def __init__(self, record: Record) -> None:
        settings = record.settings
        self.terminal = settings.tty
        self.stdin = self.stdout = self.stderr = (-1, -1)
        if self.terminal:
            return
        if settings.interactive:
            self.stdin = os.pipe2(os.O_CLOEXEC)
        else:
            self.stdin = (os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1)
        self.stdout, self.stderr = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)

    def __enter__(self) -> _Stdio:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self.stdin, *self.stdout, *self.stderr):
            if fd >= 0:
                os.close(fd)

    def hand_over(self, console: int) -> tuple[dict[int, int], int]:
        """The monitor's ends, non-blocking: outputs with their streams, and the input or -1. They are the caller's."""
        if self.terminal:
            os.set_blocking(console, False)
            return {console: STDOUT}, console
        outputs = {self.stdout[0]: STDOUT, self.stderr[0]: STDERR}
        for fd in outputs:
            _enlarge(fd)
        stdin = self.stdin[1]
        for fd in (*outputs, stdin):
            if fd >= 0:
                os.set_blocking(fd, False)
        self.stdout, self.stderr, self.stdin = (-1, self.stdout[1]), (-1, self.stderr[1]), (self.stdin[0], -1)
        return outputs, stdin


def _enlarge(fd: int) -> None:
    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        # Above the user's limit of pipe pages it stays at its usual size.
        return


def _acknowledge(fd: int, error: MinidockError | None) -> None:
    answer: dict[str, Any] = {}
    if error is not None:
        answer = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        answer["exit_status"] = error.exit_status
    try:
        os.write(fd, json.dumps(answer).encode() + b"\n")
    except OSError:
        # The starter is gone; the container goes on without it.
        return


def _silence() -> None:
    """From here on nobody listens: the starter's terminal or pipe must not stay open as long as the container runs."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd, inheritable=True)
    if null > 2:
        os.close(null)
