"""Run a further command inside a running container: join its namespaces by pidfd, then the same walls as at its start.

Two processes are born. The first becomes non-dumpable, so that the container can neither trace it nor reach the host
through its /proc entries (CVE-2016-9962), and joins the pid namespace, which only its children are in; the second is
born there, joins the rest and becomes the command. The first waits for it and passes its end on.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import ConflictError, ContainerStartError
from minidock.kernel import caps
from minidock.kernel import namespaces as ns
from minidock.kernel import process as kp
from minidock.model.spec import LIMITS
from minidock.runtime import process_steps as ps
from minidock.runtime.launch import Channel, finish_birth, report, run_child, send_go, signals_held, start_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.kernel.cgroups import Cgroup
    from minidock.log import Log
    from minidock.runtime.context import ChildContext, Stdio
    from minidock.runtime.launch import ChildStep

_GOAL = "run the command in the container"
_INNER = ns.CLONE_NEWNS | ns.CLONE_NEWNET | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC | ns.CLONE_NEWCGROUP


class ExecProcess(NamedTuple):
    """What is to be run; ``env`` is whole but for HOME, ``user`` docker's ``user[:group]``, ``groups`` are names or IDs
    of further groups, ``limits`` as in ``SetLimits``; ``raising`` are the steps of ``plan.raise_limits``, ``apparmor``
    is a profile's name or empty."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    terminal: bool
    capabilities: frozenset[str]
    no_new_privs: bool
    program: bytes | None
    limits: tuple[tuple[str, int, int], ...] = LIMITS
    raising: tuple[ChildStep, ...] = ()
    groups: tuple[str, ...] = ()
    apparmor: str = ""


class ExecStarted(NamedTuple):
    """A running command: its host PID and a pidfd of it for signals, the waiting process, the pty's master or -1."""

    pid: int
    pidfd: int
    waiter: kp.Child
    console: int

    def wait(self) -> int:
        """Wait for the command and close the descriptors: its exit status, 128 + n for one killed by signal n."""
        code = self.waiter.wait()
        self.waiter.close()
        os.close(self.pidfd)
        return code if code >= 0 else 128 - code


class JoinNamespaces(NamedTuple):
    """Enter the container's mounts, network, names and cgroup view; its root becomes this process's."""

    pidfd: int
    where: str = "child"
    why: str = "namespaces"

    def describe(self) -> str:
        return "setns by pidfd: mount network uts ipc cgroup"

    def execute(self, context: ChildContext) -> None:
        ns.setns(self.pidfd, _INNER)
        context.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def exec_in(pid: int, start_time: int, process: ExecProcess, *, cgroup: Cgroup, stdio: Stdio, log: Log) -> ExecStarted:
    """Start ``process`` in the container whose first process is ``pid`` (host number), born at ``start_time``.

    Raises ConflictError if that process is gone, else what ``launch.start`` raises.
    """
    target = _open_target(pid, start_time)
    born_read = born_write = -1
    try:
        caps.preload()
        steps = _steps(process, target, _keyring(cgroup))
        born_read, born_write = os.pipe2(os.O_CLOEXEC)
        with Channel(terminal=process.terminal) as channel:
            waiter = kp.spawn(
                lambda: _wait_for_command(target, steps, channel, born_write, cgroup=cgroup, stdio=stdio, log=log)
            )
            os.close(born_write)
            born_write = -1
            channel.become_parent()
            return _finish(channel, waiter, born_read, process, log)
    except OSError as error:
        # Only the caller's own descriptors and processes can be short here.
        raise start_error(
            "start a process", error.errno or 0, str(error.filename or ""), error.strerror or "", goal=_GOAL
        ) from None
    finally:
        for fd in (target, born_read, born_write):
            if fd >= 0:
                os.close(fd)


def _wait_for_command(
    target: int, steps: Sequence[ChildStep], channel: Channel, born: int, *, cgroup: Cgroup, stdio: Stdio, log: Log
) -> int:
    """The first process's life: join, give birth to the command, wait for it and pass its end on."""
    doing = "join the container"
    try:
        # A session of its own: what a terminal sends to the caller's group must not end the waiting.
        kp.setsid()
        kp.set_dumpable(False)
        ps.set_own_oom_score(0)
        cgroup.attach_self()
        ns.setns(target, ns.CLONE_NEWPID)
        doing = "clone3 in the container, whose limit of processes may be reached"
        with signals_held():
            inner, inner_fd = kp.clone3(0)
            if inner == 0:
                channel.become_child()
                run_child((), steps, channel=channel, cgroup=cgroup, stdio=stdio, log=log)
    except BaseException as error:
        report(channel.report_child, doing, error)
        return 125
    os.write(born, str(kp.host_pid(inner_fd)).encode())
    _let_go_of_everything(keep=inner_fd)
    code = kp.wait_pidfd(inner_fd) or 0
    return code if code >= 0 else 128 - code


def _let_go_of_everything(*, keep: int) -> None:
    """Nothing of the caller's may stay open in the waiter: neither its end of the command's input nor its terminal."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    kp.close_from(3, keep=(keep,))


def _steps(process: ExecProcess, target: int, keyring: str) -> tuple[ChildStep, ...]:
    return (
        JoinNamespaces(target),
        *((ps.OpenConsole(),) if process.terminal else ()),
        *process.raising,
        ps.SetLimits(process.limits, 0),
        ps.JoinKeyring(keyring),
        ps.ResolveUser(process.user, process.env, process.groups),
        ps.EnterDirectory(process.cwd, make=False),
        *((ps.ConfineByAppArmor(process.apparmor),) if process.apparmor else ()),
        ps.DropPrivileges(process.capabilities, process.no_new_privs, process.program),
        ps.Exec(process.args),
    )


def _keyring(cgroup: Cgroup) -> str:
    """The name of the container's session keyring: the cgroup's is the container's ID and a nonce."""
    name = os.path.basename(next(iter(cgroup.directories), ""))
    return ps.session_keyring(name.rpartition("-")[0])


def _finish(channel: Channel, waiter: kp.Child, born: int, process: ExecProcess, log: Log) -> ExecStarted:
    """Let the command go and wait for its exec. On failure nothing of it stays and the failure is raised.

    The command is killed and the waiter reaps it: killed itself, it would leave a zombie to the container's init.
    """
    number = 0
    pidfd = console = -1
    try:
        number = int(os.read(born, 32) or b"0")
        if number:
            with contextlib.suppress(ProcessLookupError):
                pidfd = ns.pidfd_open(number)
        if log.verbose:
            send_go(channel)
        console = finish_birth(channel, process.args[0], terminal=process.terminal, goal=_GOAL)
        if pidfd < 0:
            raise ContainerStartError("cannot join the container: it is stopping")
    except BaseException:
        # A command that has not been let go ends at the end of this pipe.
        channel.close("go_parent")
        with contextlib.suppress(ProcessLookupError):
            if pidfd >= 0 or not number:
                kp.pidfd_send_signal(pidfd if pidfd >= 0 else waiter.pidfd, signal.SIGKILL)
        waiter.wait()
        waiter.close()
        for fd in (pidfd, console):
            if fd >= 0:
                os.close(fd)
        raise
    return ExecStarted(number, pidfd, waiter, console)


def _open_target(pid: int, start_time: int) -> int:
    """A pidfd of exactly that process: numbers are used again."""
    try:
        pidfd = ns.pidfd_open(pid)
    except ProcessLookupError:
        raise ConflictError("the container is not running") from None
    if kp.start_time(pid) != start_time:
        os.close(pidfd)
        raise ConflictError("the container is not running")
    return pidfd
