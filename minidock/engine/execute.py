"""``exec``: a further command in a running container, with the walls that the container was started with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from minidock.containers import leftovers, status
from minidock.containers.merge import merge_env
from minidock.engine.output import Output
from minidock.engine.parts import make_parts
from minidock.engine.pump import Pump
from minidock.engine.results import ExecResult
from minidock.engine.settings import environment
from minidock.errors import ConflictError, CorruptObjectError, UsageError
from minidock.model.container import PAUSED, RUNNING
from minidock.model.spec import SECCOMP, with_defaults
from minidock.runtime.context import Stdio
from minidock.runtime.exec import ExecProcess, ExecStarted, exec_in
from minidock.store import files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.containers.parts import Parts
    from minidock.engine.base import EngineBase
    from minidock.model.container import Record


def execute(
    engine: EngineBase,
    container: str,
    command: Sequence[str],
    options: Mapping[str, Any],
    *,
    detach: bool,
    stdio: tuple[int | None, int | None, int | None],
) -> ExecResult:
    """Run a command in a container; the caller is forked."""
    parts = make_parts(engine)
    record, state = status.find(parts, container)
    if state.status == PAUSED:
        raise ConflictError(f"container {record.name} is paused", hint=f"run 'minidock unpause {record.name}' first")
    if state.status != RUNNING:
        raise ConflictError(f"container {record.name} is not running", hint=f"start it: minidock start {record.name}")
    process = _process(parts, record, command, options)

    def begin(streams: Stdio) -> ExecStarted:
        cgroup = leftovers.cgroup_of(record.id)
        return exec_in(state.pid, state.start_time, process, cgroup=cgroup, stdio=streams, log=parts.log)

    if detach:
        _begin_detached(begin, terminal=process.terminal)
        return ExecResult()
    outputs = Output(stdio[1]), Output(stdio[2])
    try:
        pump = Pump(
            stdin=-1 if stdio[0] is None else stdio[0],
            stdout=outputs[0].fd,
            stderr=outputs[1].fd,
            terminal=process.terminal,
        )
        return ExecResult(pump.run(begin), outputs[0].take(), outputs[1].take())
    finally:
        for output in outputs:
            output.close()


def _process(parts: Parts, record: Record, command: Sequence[str], options: Mapping[str, Any]) -> ExecProcess:
    """The command with the container's environment, user, directory, capabilities and seccomp filter.

    ``privileged`` gives all capabilities and keeps the filter, as in docker. Raises UsageError, CorruptObjectError.
    """
    from minidock.runtime import seccomp
    from minidock.runtime.plan import available_capabilities, confining, raise_limits, read_limits

    if not command:
        raise UsageError("there is no command to run", hint="give it after the container's name")
    workdir = options["workdir"] or record.workdir or "/"
    if not workdir.startswith("/"):
        raise UsageError(f"the working directory {workdir!r} is not an absolute path")
    spec = files.read_json(f"{parts.root.container_dir(record.id)}/config.json")
    try:
        bounding = frozenset(spec["process"]["capabilities"]["bounding"])
        profile, no_new_privs = spec["annotations"][SECCOMP], bool(spec["process"]["noNewPrivileges"])
        limits = spec["process"]["rlimits"]
    except (KeyError, TypeError) as error:
        raise CorruptObjectError(f"the runtime spec of container {record.name} is damaged: no {error}") from None
    env = merge_env(record.env, environment(options["env"]))
    return ExecProcess(
        args=tuple(command),
        env=with_defaults(env, hostname=record.hostname, terminal=options["tty"]),
        cwd=workdir,
        user=options["user"] or record.user,
        terminal=options["tty"],
        capabilities=available_capabilities() if options["privileged"] else bounding,
        no_new_privs=no_new_privs,
        program=seccomp.program(profile=profile, bounding=bounding, cache_dir=f"{parts.root.cache}/seccomp"),
        limits=read_limits(limits),
        raising=raise_limits(limits),
        groups=record.settings.group_add,
        apparmor=confining(spec["process"]),
    )


def _begin_detached(begin: Any, *, terminal: bool) -> None:
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        started = begin(Stdio(nothing, nothing, nothing, terminal))
    finally:
        os.close(nothing)
    started.waiter.close()
    for fd in (started.pidfd, started.console):
        if fd >= 0:
            os.close(fd)
