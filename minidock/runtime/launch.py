"""Execute a plan: give birth to a container's first process and bring it to its exec.

Three pipes tie parent and child. ``ready`` carries the mount points that the child had to make, once its mounts are
done. ``go`` lets the child pass from its mounts to the rest; its end of file means that the parent has died, and the
child leaves. ``report`` carries a failure, or is closed by the exec.

A SIGKILL of the parent at any point leaves a child that sees the end of ``go`` or, when its parent is the init of a pid
namespace, is killed by the kernel with it. The new cgroup stays behind, empty, and is removed with the container's
other leftovers by whoever finds its lock free.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

from minidock import errors
from minidock.kernel import caps
from minidock.kernel import process as kp
from minidock.kernel.trampoline import open_trampoline
from minidock.runtime.context import ChildContext, ParentContext, Stdio
from minidock.runtime.program import exec_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minidock.kernel.cgroups import Cgroup
    from minidock.log import Log
    from minidock.model.steps import Step
    from minidock.runtime.plan import Plan

_GO = b"g"


class Started(NamedTuple):
    """A running container: its first process (host PID, pidfd, start time), its cgroup, the pty's master or -1.

    ``stubs`` are the paths that had to be made in its root as mount points.
    """

    pid: int
    pidfd: int
    start_time: int
    cgroup: Cgroup
    console: int
    stubs: tuple[str, ...]


class Channel:
    """The descriptors between parent and child; each side closes the other's ends."""

    __slots__ = (
        "console_child",
        "console_parent",
        "go_child",
        "go_parent",
        "ready_child",
        "ready_parent",
        "report_child",
        "report_parent",
        "trampoline",
    )

    def __init__(self, *, terminal: bool) -> None:
        self.ready_parent, self.ready_child = os.pipe2(os.O_CLOEXEC)
        self.go_child, self.go_parent = os.pipe2(os.O_CLOEXEC)
        self.report_parent, self.report_child = os.pipe2(os.O_CLOEXEC)
        self.console_parent, self.console_child = _socket_pair() if terminal else (-1, -1)
        self.trampoline = open_trampoline()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close(*self.__slots__)

    def close(self, *names: str) -> None:
        for name in names:
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)

    def become_child(self) -> None:
        self.close("ready_parent", "go_parent", "report_parent", "console_parent")

    def become_parent(self) -> None:
        self.close("ready_child", "go_child", "report_child", "console_child", "trampoline")


def start(plan: Plan, *, stdio: Stdio, log: Log, announce: Callable[[Cgroup], None] | None = None) -> Started:
    """Execute ``plan``; returns when the command has been executed.

    ``announce`` is called with the new cgroup before anything is born into it, so that it can be recorded first. The
    caller's own mounts, namespaces, signals and directory are as before. Raises CommandNotFoundError (127),
    CommandNotExecutableError (126) or ContainerStartError (125), also what a step of another unit raises; then nothing
    of the container is left.
    """
    context = ParentContext(log)
    try:
        for step in plan.before:
            _perform(step, context, log)
        if announce is not None and context.cgroup is not None:
            announce(context.cgroup)
        with Channel(terminal=plan.terminal) as channel:
            return _give_birth(plan, context, channel, stdio)
    except BaseException:
        _take_down(context)
        raise


def _give_birth(plan: Plan, context: ParentContext, channel: Channel, stdio: Stdio) -> Started:
    caps.preload()
    log = context.log
    log.debug(plan.birth.describe())
    cgroup = context.cgroup
    assert cgroup is not None, "the plan's first step makes the cgroup"
    cgroup_fd = cgroup.open_unified() if "unified" in cgroup.paths else -1
    try:
        pid, pidfd = kp.clone3(plan.flags, cgroup_fd=cgroup_fd)
    finally:
        if cgroup_fd >= 0:
            os.close(cgroup_fd)
    if pid == 0:
        channel.become_child()
        run_child(plan.mounts, plan.inside, channel=channel, cgroup=cgroup, stdio=stdio, log=log)
    context.pidfd = pidfd
    context.pid = kp.host_pid(pidfd)
    channel.become_parent()
    for step in plan.beside:
        _perform(step, context, log)
    if log.verbose:
        # So that the steps appear in the plan's order: the child begins when the parent's own are done.
        send_go(channel)
    stubs = read_ready(channel.ready_parent)
    start_time = kp.start_time(context.pid)
    console = finish_birth(channel, plan.args[0], terminal=plan.terminal)
    return Started(context.pid, pidfd, start_time, cgroup, console, stubs)


def finish_birth(channel: Channel, name: str, *, terminal: bool) -> int:
    """Let the child go on and wait for its exec; the pty's master, or -1. Raises what the child failed with."""
    send_go(channel)
    console = -1
    if terminal:
        _, fds = kp.recv_fds(channel.console_parent, 1)
        console = fds[0] if fds else -1
    failure = kp.read_failure(channel.report_parent)
    if failure is not None:
        if console >= 0:
            os.close(console)
        raise _error_of(failure, name)
    return console


def _socket_pair() -> tuple[int, int]:
    import socket

    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def _perform(step: Step, context: ParentContext, log: Log) -> None:
    log.debug(step.describe())
    try:
        step.execute(context)
    except OSError as error:
        raise _start_error(step.describe(), error.errno or 0, str(error.filename or ""), error.strerror or "") from None


def send_go(channel: Channel) -> None:
    # A child that is gone already has left its failure in the report.
    with contextlib.suppress(BrokenPipeError):
        os.write(channel.go_parent, _GO)


def read_ready(fd: int) -> tuple[str, ...]:
    """The child's list of stubs: read until it closes its end. Paths are separated by NUL."""
    data = b""
    while chunk := os.read(fd, 65536):
        data += chunk
    return tuple(os.fsdecode(path) for path in data.split(b"\0") if path)


def _take_down(context: ParentContext) -> None:
    if context.pidfd >= 0:
        with contextlib.suppress(ProcessLookupError):
            kp.pidfd_send_signal(context.pidfd, signal.SIGKILL)
        kp.wait_pidfd(context.pidfd)
        os.close(context.pidfd)
    if context.cgroup is not None:
        with contextlib.suppress(OSError):
            context.cgroup.remove()


class ChildStep(Protocol):
    """A step on the child's side."""

    def describe(self) -> str: ...

    def execute(self, context: ChildContext, /) -> None: ...


def run_child(
    mounts: Sequence[ChildStep],
    inside: Sequence[ChildStep],
    *,
    channel: Channel,
    cgroup: Cgroup,
    stdio: Stdio,
    log: Log,
) -> NoReturn:
    """The child's whole life in this program: it ends in the command's exec or in a reported failure."""
    step: ChildStep | None = None
    context = ChildContext(
        cgroup=cgroup,
        stdio=stdio,
        trampoline=channel.trampoline,
        console=channel.console_child,
        report=channel.report_child,
    )
    try:
        if log.verbose:
            _wait_go(channel)
        for step in mounts:
            log.debug(step.describe())
            step.execute(context)
        os.write(channel.ready_child, b"\0".join(os.fsencode(path) for path in context.stubs))
        channel.close("ready_child")
        _wait_go(channel)
        for step in inside:
            log.debug(step.describe())
            step.execute(context)
    except BaseException as error:
        _report(context.report, step, error)
    kp.exit_now(125)


def _wait_go(channel: Channel) -> None:
    if os.read(channel.go_child, 1) != _GO:
        kp.exit_now(125)


def _report(fd: int, step: ChildStep | None, error: BaseException) -> None:
    """Send what went wrong: an error of ours by its class's name, the kernel's as errno, step and path."""
    if isinstance(error, errors.MinidockError):
        failure = kp.Failure(0, type(error).__name__, error.hint, error.message)
    elif isinstance(error, OSError):
        what = step.describe() if step is not None else "start"
        failure = kp.Failure(error.errno or errno.EIO, what, str(error.filename or ""), error.strerror or "")
    else:
        what = step.describe() if step is not None else "start"
        failure = kp.Failure(errno.EIO, what, "", f"{type(error).__name__}: {error}")
    kp.send_failure(fd, failure)


def _error_of(failure: kp.Failure, name: str) -> errors.MinidockError:
    if not failure.errno:
        kind = getattr(errors, failure.step, errors.ContainerStartError)
        error: errors.MinidockError = kind(failure.message, hint=failure.path)
        return error
    if failure.step == "exec":
        # The trampoline's bare errno: the kernel refused the command itself.
        return exec_failure(name, failure.errno)
    return _start_error(failure.step, failure.errno, failure.path, failure.message)


def _start_error(step: str, number: int, path: str, text: str) -> errors.ContainerStartError:
    reason = (text or os.strerror(number)).lower()
    where = f": {path}" if path and path not in step else ""
    return errors.ContainerStartError(f"cannot start the container: {reason}{where}", hint=f"while: {step}")
