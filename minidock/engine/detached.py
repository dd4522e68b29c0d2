"""The verbs that make processes, for callers that are not to be forked: each in a launcher of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.engine.launcher import call
from minidock.engine.output import Output
from minidock.engine.results import ExecResult, RunResult
from minidock.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.engine.base import EngineBase

Stdio = tuple[int | None, int | None, int | None]


def run(
    engine: EngineBase,
    image: str,
    command: Sequence[str],
    options: Mapping[str, Any],
    *,
    detach: bool,
    stdio: Stdio,
) -> RunResult:
    """``Engine.run`` in a process of its own."""
    value, stdout, stderr = _with_output(engine, "run", [image, *command], _plain(options), detach=detach, stdio=stdio)
    return RunResult(value[0], value[1], stdout, stderr)


def start(engine: EngineBase, container: str, *, attach: bool, stdio: Stdio) -> int:
    """``Engine.start`` in a process of its own."""
    if not attach:
        return int(call(engine, "start", [container], {}, stdio=(None, None, 2)))
    options = {"attach": True, "stdin": 0, "stdout": 1, "stderr": 2}
    return int(call(engine, "start", [container], options, stdio=stdio))


def execute(
    engine: EngineBase,
    container: str,
    command: Sequence[str],
    options: Mapping[str, Any],
    *,
    detach: bool,
    stdio: Stdio,
) -> ExecResult:
    """``Engine.exec`` in a process of its own."""
    value, stdout, stderr = _with_output(
        engine, "exec", [container, *command], _plain(options), detach=detach, stdio=stdio
    )
    return ExecResult(value[0], stdout, stderr)


def build(engine: EngineBase, context: str, options: Mapping[str, Any], *, progress: int | None) -> str:
    """``Engine.build`` in a process of its own. Raises UsageError for a shell, whose terminal it has not."""
    if options.get("on_error") == "shell":
        raise UsageError("on_error=shell needs an engine that may fork its caller", hint="use Engine(may_fork=True)")
    stdout = options.get("stdout")
    plain = _plain(options) | {"progress": None if progress is None else 2, "stdout": None if stdout is None else 1}
    return str(call(engine, "build", [context], plain, stdio=(0 if context == "-" else None, stdout, progress)))


def _with_output(
    engine: EngineBase, verb: str, arguments: list[str], options: dict[str, Any], *, detach: bool, stdio: Stdio
) -> tuple[Any, bytes, bytes]:
    """The verb's result, and what it wrote where the caller gave no descriptors."""
    if detach:
        return call(engine, verb, arguments, options | {"detach": True}, stdio=(None, None, 2)), b"", b""
    outputs = Output(stdio[1]), Output(stdio[2])
    try:
        descriptors = {"stdin": 0, "stdout": 1, "stderr": 2}
        streams = (stdio[0], outputs[0].fd, outputs[1].fd)
        value = call(engine, verb, arguments, options | descriptors, stdio=streams)
        return value, outputs[0].take(), outputs[1].take()
    finally:
        for output in outputs:
            output.close()


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON can carry them; the launcher's environment and directory are the caller's."""
    plain = dict(options)
    for name in ("env", "labels", "build_args"):
        if hasattr(plain.get(name), "items"):
            plain[name] = dict(plain[name])
    return plain
