"""Run one build step to its end: the same sandbox as a container's, without a monitor.

A keeper stands between the builder and the step: it is the init of an outer pid namespace and dies with the builder by
a parent-death signal (its credentials never change, so the signal stays set), and the kernel then kills the step with
everything that it started. A SIGKILL of the builder leaves an empty cgroup, which bears the builder's process in its
name; the next build removes it (``remove_stale_cgroups``).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from typing import TYPE_CHECKING, NamedTuple

from minidock import errors
from minidock.kernel import cgroups
from minidock.kernel import namespaces as ns
from minidock.kernel import process as kp
from minidock.runtime.context import Stdio
from minidock.runtime.launch import start

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.log import Log
    from minidock.runtime.plan import Plan

_CHUNK = 65536
_PREFIX = "step-"


class StepResult(NamedTuple):
    """How a step ended: its exit status (128 + n for a signal) and the mount points made in its root."""

    status: int
    stubs: tuple[str, ...]


def cgroup_name() -> str:
    """A name for the cgroups of this process's steps: it tells whose they are, and from when."""
    pid = int(os.readlink("/proc/self"))
    return f"{_PREFIX}{pid}-{kp.start_time(pid)}"


def remove_stale_cgroups() -> None:
    """Remove the cgroups of builders that are gone."""
    layout = cgroups.detect()
    for hierarchy in {*layout.controllers.values(), layout.unified} - {""}:
        parent = f"{hierarchy}/{cgroups.PARENT}"
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(parent):
                pid, _, rest = name.removeprefix(_PREFIX).partition("-")
                if name.startswith(_PREFIX) and pid.isdigit() and str(kp.start_time(int(pid))) != rest.split("-")[0]:
                    with contextlib.suppress(OSError):
                        os.rmdir(f"{parent}/{name}")


def run_to_exit(plan: Plan, *, on_output: Callable[[bytes], None], log: Log) -> StepResult:
    """Run ``plan`` with /dev/null as its input, handing its output (both streams, as it comes) to ``on_output``.

    Raises what ``launch.start`` raises. Whatever ends this call, an exception of ``on_output`` included, nothing of the
    step runs on.
    """
    output_read, output_write = os.pipe2(os.O_CLOEXEC)
    result_read, result_write = os.pipe2(os.O_CLOEXEC)
    builder = ns.pidfd_open(os.getpid())
    messages = bytearray()
    try:
        keeper = kp.spawn(lambda: _keep(plan, output_write, result_write, builder, log), flags=ns.CLONE_NEWPID)
        os.close(output_write)
        os.close(result_write)
        output_write = result_write = -1
        try:
            _relay(output_read, result_read, on_output, messages)
        finally:
            with contextlib.suppress(ProcessLookupError):
                kp.pidfd_send_signal(keeper.pidfd, signal.SIGKILL)
            keeper.wait()
            keeper.close()
            _remove_cgroup(messages)
    finally:
        for fd in (output_read, output_write, result_read, result_write, builder):
            if fd >= 0:
                os.close(fd)
    return _result(messages)


def _relay(output: int, result: int, on_output: Callable[[bytes], None], messages: bytearray) -> None:
    """Copy output until the keeper has closed its result; what is left in the pipe then is the step's last words.

    What the keeper tells is appended to ``messages`` as it comes, so that an exception does not lose it.
    """
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(result, select.POLLIN)
    open_fds = {output, result}
    while result in open_fds:
        for fd, _ in poll.poll():
            chunk = os.read(fd, _CHUNK)
            if not chunk:
                poll.unregister(fd)
                open_fds.discard(fd)
            elif fd == output:
                on_output(chunk)
            else:
                messages += chunk
    os.set_blocking(output, False)
    with contextlib.suppress(BlockingIOError):
        while output in open_fds and (chunk := os.read(output, _CHUNK)):
            on_output(chunk)


def _keep(plan: Plan, output: int, result: int, builder: int, log: Log) -> int:
    """The keeper's life: start the step and wait for it; each line of JSON is something the builder must know."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kp.set_pdeathsig(signal.SIGKILL)
    poll = select.poll()
    poll.register(builder, select.POLLIN)
    if poll.poll(0):
        return 1
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def tell(**message: object) -> None:
        os.write(result, json.dumps(message).encode() + b"\n")

    try:
        started = start(
            plan,
            stdio=Stdio(null, output, output),
            log=log,
            announce=lambda cgroup: tell(cgroup=cgroup.paths),
        )
        os.close(output)
        code = kp.wait_pidfd(started.pidfd) or 0
        tell(status=code if code >= 0 else 128 - code, stubs=started.stubs)
    except errors.MinidockError as error:
        tell(error=type(error).__name__, message=error.message, hint=error.hint)
    return 0


def _result(messages: bytearray) -> StepResult:
    values: dict[str, object] = {}
    for line in messages.splitlines():
        values.update(json.loads(line))
    if "error" in values:
        kind = getattr(errors, str(values["error"]), errors.ContainerStartError)
        raise kind(str(values["message"]), hint=str(values["hint"]))
    if "status" not in values:
        raise errors.ContainerStartError("the build step was killed from outside")
    stubs = values["stubs"]
    assert isinstance(stubs, list)
    return StepResult(int(str(values["status"])), tuple(stubs))


def _remove_cgroup(messages: bytearray) -> None:
    for line in messages.splitlines():
        paths = json.loads(line).get("cgroup")
        if paths:
            cgroup = cgroups.open(paths)
            with contextlib.suppress(OSError):
                cgroup.kill()
                cgroup.remove()
