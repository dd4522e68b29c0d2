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
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from minidock.kernel.cgroups import Cgroup
    from minidock.log import Log
    from minidock.model.steps import Step
    from minidock.runtime.plan import Plan

_GO = b"g"
# All but the two that the C library keeps to itself.
_SIGNALS = (*range(1, 32), *range(34, 65))
_HINT = 100


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

    console_child: int
    console_parent: int
    go_child: int
    go_parent: int
    ready_child: int
    ready_parent: int
    report_child: int
    report_parent: int
    trampoline: int

    def __init__(self, *, terminal: bool) -> None:
        for name in self.__slots__:
            setattr(self, name, -1)
        try:
            self.ready_parent, self.ready_child = os.pipe2(os.O_CLOEXEC)
            self.go_child, self.go_parent = os.pipe2(os.O_CLOEXEC)
            self.report_parent, self.report_child = os.pipe2(os.O_CLOEXEC)
            if terminal:
                # The child needs it too, and imports nothing any more.
                from minidock.kernel.passing import socket_pair

                self.console_parent, self.console_child = socket_pair()
            self.trampoline = open_trampoline()
        except OSError as error:
            self.close(*self.__slots__)
            raise start_error("open the pipes to the container", error.errno or 0, "", error.strerror or "") from None

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
    with signals_held():
        if _clone_into(cgroup, plan.flags, context) == 0:
            channel.become_child()
            run_child(
                plan.mounts,
                plan.inside,
                channel=channel,
                cgroup=cgroup,
                stdio=stdio,
                log=log,
                lowers=context.lowers,
                trees=context.trees,
            )
    context.pid = kp.host_pid(context.pidfd)
    channel.become_parent()
    for step in plan.beside:
        _perform(step, context, log)
    if log.verbose:
        # So that the steps appear in the plan's order: the child begins when the parent's own are done.
        send_go(channel)
    stubs = read_ready(channel.ready_parent)
    start_time = kp.start_time(context.pid)
    console = finish_birth(channel, plan.args[0], terminal=plan.terminal)
    # Who closes a detached mount last waits for the kernel: not the child, which would do so in its exec.
    context.close_lowers()
    return Started(context.pid, context.pidfd, start_time, cgroup, console, stubs)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """No signal is handled meanwhile: in the parent none comes between a birth and the note of it, and the child, which
    unblocks all right before its exec, never runs the caller's handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _clone_into(cgroup: Cgroup, flags: int, context: ParentContext) -> int:
    """clone3, in the cgroup where version 2 is mounted: 0 in the child."""
    cgroup_fd = -1
    try:
        cgroup_fd = cgroup.open_unified() if "unified" in cgroup.paths else -1
        pid, context.pidfd = kp.clone3(flags, cgroup_fd=cgroup_fd)
    except OSError as error:
        raise start_error("clone3", error.errno or 0, str(error.filename or ""), error.strerror or "") from None
    finally:
        if cgroup_fd >= 0:
            os.close(cgroup_fd)
    return pid


def finish_birth(channel: Channel, name: str, *, terminal: bool, goal: str = "start the container") -> int:
    """Let the child go on and wait for its exec; the pty's master, or -1. Raises what the child failed with."""
    send_go(channel)
    console = -1
    try:
        if terminal:
            from minidock.kernel.passing import recv_fds

            _, fds = recv_fds(channel.console_parent, 1)
            console = fds[0] if fds else -1
        failure = kp.read_failure(channel.report_parent)
        if failure is not None:
            raise _error_of(failure, name, goal)
    except BaseException:
        if console >= 0:
            os.close(console)
        raise
    return console


def _perform(step: Step, context: ParentContext, log: Log) -> None:
    log.debug(step.describe())
    try:
        step.execute(context)
    except OSError as error:
        raise start_error(step.describe(), error.errno or 0, str(error.filename or ""), error.strerror or "") from None


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
    context.close_lowers()
    if context.pidfd >= 0:
        with contextlib.suppress(ProcessLookupError):
            kp.pidfd_send_signal(context.pidfd, signal.SIGKILL)
        kp.wait_pidfd(context.pidfd)
        os.close(context.pidfd)
        context.pidfd = -1
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
    lowers: Sequence[str | int] = (),
    trees: Mapping[str, Sequence[str | int]] | None = None,
) -> NoReturn:
    """The child's whole life in this program: it ends in the command's exec or in a reported failure."""
    step: ChildStep | None = None
    context = ChildContext(
        cgroup=cgroup,
        stdio=stdio,
        trampoline=channel.trampoline,
        console=channel.console_child,
        report=channel.report_child,
        log=log.fd,
        lowers=lowers,
        trees=trees,
    )
    # What is made on the way, mount points and working directory, has the modes that are written in the code.
    os.umask(0o022)
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
        report(context.report, step.describe() if step is not None else "start", error)
    kp.exit_now(125)


def _wait_go(channel: Channel) -> None:
    if os.read(channel.go_child, 1) != _GO:
        kp.exit_now(125)


def report(fd: int, doing: str, error: BaseException) -> None:
    """Send what went wrong: an error of ours by its class's name, the kernel's as errno, step and path."""
    if isinstance(error, errors.MinidockError):
        failure = kp.Failure(0, type(error).__name__, error.hint, error.message)
    elif isinstance(error, OSError):
        failure = kp.Failure(error.errno or errno.EIO, doing, str(error.filename or ""), error.strerror or "")
    else:
        failure = kp.Failure(errno.EIO, doing, "", f"{type(error).__name__}: {error}")
    kp.send_failure(fd, failure)


def _error_of(failure: kp.Failure, name: str, goal: str) -> errors.MinidockError:
    if not failure.errno:
        kind = getattr(errors, failure.step, None)
        # A process of the container may have forged it: nothing but a class of ours is made of it.
        if not (isinstance(kind, type) and issubclass(kind, errors.MinidockError)):
            kind = errors.ContainerStartError
        return kind(failure.message, hint=failure.path)
    if failure.step == "exec":
        # The trampoline's bare errno: the kernel refused the command itself.
        return exec_failure(name, failure.errno)
    return start_error(failure.step, failure.errno, failure.path, failure.message, goal=goal)


def start_error(
    doing: str, number: int, path: str, text: str, *, goal: str = "start the container"
) -> errors.ContainerStartError:
    """The error for a step that the kernel refused; what it was doing becomes the hint, cut to a line."""
    reason = (text or os.strerror(number)).lower()
    where = f": {path}" if path and path not in doing else ""
    if len(doing) > _HINT:
        doing = f"{doing[:_HINT]}..."
    return errors.ContainerStartError(f"cannot {goal}: {reason}{where}", hint=f"while: {doing}")
