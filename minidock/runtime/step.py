"""Run build steps, one after the other: the same sandbox as a container's, without a monitor.

A keeper stands between the builder and its steps: it is the init of an outer pid namespace and dies with the builder by
a parent-death signal (its credentials never change, so the signal stays set), and the kernel then kills the step with
everything that it started. It serves all steps of a build: what planning and starting need is loaded once, and the
builder is forked once, however many steps there are. A SIGKILL of the builder leaves an empty cgroup, which bears the
builder's process in its name; the next build removes it (``remove_stale_cgroups``).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock import errors
from minidock.kernel import cgroups
from minidock.kernel import namespaces as ns
from minidock.kernel import process as kp
from minidock.runtime.context import Stdio

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from minidock.log import Log
    from minidock.runtime.launch import Started
    from minidock.runtime.plan import Plan

    PlanOf = Callable[[dict[str, Any]], Plan]
    Planner = Callable[[], AbstractContextManager[PlanOf]]
    Attend = Callable[[Callable[[Stdio], Started]], Started]

_CHUNK = 65536
_PREFIX = "step-"
_KILLED = {"error": "ContainerStartError", "message": "the build step was killed from outside", "hint": ""}


class StepResult(NamedTuple):
    """How a step ended: its exit status (128 + n for a signal) and the mount points made in its root."""

    status: int
    stubs: tuple[str, ...]


def cgroup_name() -> str:
    """A name for the cgroups of this process's steps: it tells whose they are, and from when."""
    pid = int(os.readlink("/proc/self"))
    return f"{_PREFIX}{pid}-{kp.start_time(pid)}"


def remove_stale_cgroups(*, own: bool = False) -> None:
    """Remove the cgroups of builders that are gone; with ``own`` those of this process, too."""
    layout, this = cgroups.detect(), cgroup_name() if own else "none"
    for hierarchy in {*layout.controllers.values(), layout.unified} - {""}:
        parent = f"{hierarchy}/{cgroups.PARENT}"
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(parent):
                pid, started = (*name.removeprefix(_PREFIX).split("-"), "")[:2]
                if not name.startswith(_PREFIX) or not pid.isdigit() or not started.isdigit():
                    continue
                if name.startswith(this) or not kp.is_running(int(pid), int(started)):
                    with contextlib.suppress(OSError):
                        os.rmdir(f"{parent}/{name}")


def run_to_exit(plan: Plan, *, on_output: Callable[[bytes], None], log: Log) -> StepResult:
    """Run one plan under a keeper of its own; see ``Keeper.run``."""
    with Keeper(lambda: contextlib.nullcontext(lambda _: plan), log) as keeper:
        return keeper.run({}, on_output=on_output)


class Keeper:
    """The builder's side of a keeper. A context manager: the keeper lives as long.

    ``planner`` is entered in the keeper and gives what turns a request, a JSON object, into a plan; it is left there
    when the context ends without an exception. ``attend`` is for requests for a terminal: it starts a command with what
    it is handed, on a terminal, and returns when that has ended.
    """

    __slots__ = ("_attend", "_cgroup", "_child", "_fds", "_log", "_pending", "_planner")

    def __init__(self, planner: Planner, log: Log, *, attend: Attend | None = None) -> None:
        self._planner = planner
        self._attend = attend
        self._log = log
        self._fds: list[int] = []
        self._pending = b""
        self._cgroup: dict[str, str] = {}

    def __enter__(self) -> Keeper:
        request_read, request_write = os.pipe2(os.O_CLOEXEC)
        result_read, result_write = os.pipe2(os.O_CLOEXEC)
        output_read, output_write = os.pipe2(os.O_CLOEXEC)
        builder = ns.pidfd_open(os.getpid())
        self._fds = [request_write, result_read, output_read]

        def keep() -> None:
            # By their numbers: a caller without standard descriptors gets these.
            for fd in self._fds:
                os.close(fd)
            # It outlives what the builder has open now: whoever waits for a lock of that would wait for the keeper.
            kp.close_from(3, keep=(request_read, result_write, output_write, builder, self._log.fd))
            keeping = _Keeping(output_write, result_write, self._log, self._attend)
            keeping.serve(request_read, builder, self._planner)

        try:
            self._child = kp.spawn(keep, flags=ns.CLONE_NEWPID)
        except BaseException:
            self._close()
            raise
        finally:
            for fd in (request_read, result_write, output_write, builder):
                os.close(fd)
        os.set_blocking(output_read, False)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end(kill=kind is not None)

    def run(
        self,
        request: dict[str, Any],
        *,
        on_output: Callable[[bytes], None],
        meanwhile: Callable[[], None] | None = None,
    ) -> StepResult:
        """Run the plan of ``request`` to its end with /dev/null as its input, handing its output (both streams, as it
        comes) to ``on_output``. ``meanwhile`` is called once, as soon as the keeper has the request. A request for a
        ``terminal`` has the one that descriptor 0 is, in raw mode, instead.

        Raises what ``launch.start`` and the planner raise. Whatever ends this call, an exception of a callable
        included, nothing of the step runs on; after such an exception the keeper is gone.
        """
        try:
            with contextlib.suppress(BrokenPipeError):
                _write(self._fds[0], request)
            if meanwhile is not None:
                meanwhile()
            with _raw_terminal() if request.get("terminal") else contextlib.nullcontext():
                values = self._relay(on_output)
        except BaseException:
            self._end(kill=True)
            raise
        if "error" in values:
            kind = getattr(errors, values["error"], errors.ContainerStartError)
            raise kind(values["message"], hint=values["hint"])
        return StepResult(values["status"], tuple(values["stubs"]))

    def _relay(self, on_output: Callable[[bytes], None]) -> dict[str, Any]:
        """Copy output until the keeper says how the step ended; what is left in the pipe then is its last words."""
        _, result, output = self._fds
        poll = select.poll()
        poll.register(output, select.POLLIN)
        poll.register(result, select.POLLIN)
        values: dict[str, Any] = {}
        while not values:
            for fd, _ in poll.poll():
                if fd == result:
                    values = self._read_result(result)
                elif chunk := _read_now(output):
                    on_output(chunk)
                else:
                    poll.unregister(output)
        while chunk := _read_now(output):
            on_output(chunk)
        return values

    def _read_result(self, result: int) -> dict[str, Any]:
        """What the keeper said last, if that is the step's end."""
        chunk = os.read(result, _CHUNK)
        if not chunk:
            return _KILLED
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            if "cgroup" not in message:
                return message
            self._cgroup = message["cgroup"]
        return {}

    def _end(self, *, kill: bool) -> None:
        """Let the keeper leave, or kill it with whatever runs below it."""
        if not self._fds:
            return
        try:
            if not kill:
                os.close(self._fds.pop(0))
                self._child.wait()
        except BaseException:
            kill = True
            raise
        finally:
            if kill:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    kp.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)
                    self._child.wait()
            self._child.close()
            self._clear(self._fds[-2])

    def _clear(self, result: int) -> None:
        """What a keeper that is dead now leaves to the builder."""
        # It may have told of a cgroup that nobody has read of yet.
        while self._read_result(result) is not _KILLED:
            continue
        self._close()
        if self._cgroup:
            # The last step's: it is gone, unless the keeper was killed before it had removed all of it.
            cgroup, self._cgroup = cgroups.open(self._cgroup), {}
            with contextlib.suppress(OSError):
                cgroup.kill()
            with contextlib.suppress(OSError):
                cgroup.remove()

    def _close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []


class _Keeping:
    """The keeper's side: ``output`` is what steps write to, ``result`` what the builder reads."""

    __slots__ = ("_attend", "_log", "_null", "_output", "_result")

    def __init__(self, output: int, result: int, log: Log, attend: Attend | None) -> None:
        self._attend = attend
        self._output = output
        self._result = result
        self._log = log
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def serve(self, requests: int, builder: int, planner: Planner) -> None:
        """Run a step for each line of ``requests``, until they end."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        kp.set_pdeathsig(signal.SIGKILL)
        poll = select.poll()
        poll.register(builder, select.POLLIN)
        if poll.poll(0):
            return
        with planner() as plan_of, open(requests, "rb") as lines:
            for line in lines:
                self._run(plan_of, json.loads(line))

    def _run(self, plan_of: PlanOf, request: dict[str, Any]) -> None:
        from minidock.runtime.launch import start

        try:
            begin = partial(
                start,
                plan_of(request),
                log=self._log,
                announce=lambda cgroup: _write(self._result, {"cgroup": cgroup.paths}),
            )
            if request.get("terminal") and self._attend is not None:
                started = self._attend(lambda stdio: begin(stdio=stdio))
            else:
                started = begin(stdio=Stdio(self._null, self._output, self._output))
            code = kp.wait_pidfd(started.pidfd) or 0
            _write(self._result, {"status": code if code >= 0 else 128 - code, "stubs": started.stubs})
            os.close(started.pidfd)
            with contextlib.suppress(OSError):
                started.cgroup.remove()
        except errors.MinidockError as error:
            _write(self._result, {"error": type(error).__name__, "message": error.message, "hint": error.hint})
        except OSError as error:
            what = f"cannot run the build step: {error.filename or ''}: {error.strerror}".replace(": :", ":")
            _write(self._result, {"error": "ContainerStartError", "message": what, "hint": ""})


def _raw_terminal() -> AbstractContextManager[None]:
    """The terminal in raw mode: here, where it is given back also when the keeper was killed."""
    from minidock.kernel import tty

    return tty.raw_mode(0)


def _write(fd: int, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def _read_now(fd: int) -> bytes:
    """What is in the pipe; nothing when it is empty or its end."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return b""
