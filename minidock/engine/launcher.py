"""Verbs in a process of their own, for callers that must not be forked.

A Python program that uses ``Engine`` may have threads, whose locks a fork would copy. So a verb that makes processes
runs in a fresh interpreter (posix_spawn of ``python -I -S``): the request goes in as JSON on descriptor 3, the reply
comes back on descriptor 4, and standard input, output and error are what the caller gives.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from minidock import errors

if TYPE_CHECKING:
    from minidock.engine.base import EngineBase

_REQUEST, _REPLY = 3, 4
_FIRST_FREE = 64
# Where this package lies: an import hook (of an editable install) may have found it outside of sys.path.
_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = (
    "import json, sys\n"
    f"with open({_REQUEST}, encoding='utf-8', errors='surrogateescape') as file: request = json.load(file)\n"
    "sys.path[:] = request['path']\n"
    "from minidock.engine.engine import Engine\n"
    "from minidock.engine.launcher import serve\n"
    "serve(request, Engine)\n"
)


def call(
    engine: EngineBase,
    verb: str,
    arguments: list[Any],
    options: Mapping[str, Any],
    *,
    stdio: tuple[int | None, int | None, int | None],
) -> Any:
    """Do ``engine.verb(*arguments, **options)`` in a process of its own and give its result as JSON has it.

    ``stdio`` are the descriptors of its standard input, output and error; None is /dev/null. Raises the error that the
    verb raised.
    """
    request = {
        "path": [*(os.path.abspath(entry) for entry in sys.path), _PACKAGES],
        "engine": {
            "root": engine.root.path,
            "driver": engine.driver,
            "layers": engine.layers,
            "debug": engine.log.verbose,
        },
        "verb": verb,
        "arguments": arguments,
        "options": dict(options),
    }
    empty = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    question = os.memfd_create("minidock-request", os.MFD_CLOEXEC)
    reply = os.memfd_create("minidock-reply", os.MFD_CLOEXEC)
    try:
        os.write(question, json.dumps(request).encode())
        os.lseek(question, 0, os.SEEK_SET)
        given = [empty if fd is None else fd for fd in stdio]
        status = _spawn([*given, question, reply])
        answer = os.pread(reply, os.fstat(reply).st_size, 0)
    finally:
        for fd in (empty, question, reply):
            os.close(fd)
    if not answer:
        raise errors.MinidockError(f"the process that was to do {verb!r} ended with status {status}")
    result = json.loads(answer)
    if "error" in result:
        raise _decode_error(result["error"])
    return result["value"]


def _spawn(fds: list[int]) -> int:
    """Run the program with ``fds`` as its descriptors 0 to 4 and wait for it; its exit status."""
    # Copies out of the way first: a descriptor that is to become 3 must not overwrite one that is yet to be copied.
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for fd in fds]
    try:
        actions = [(os.POSIX_SPAWN_DUP2, copy, target) for target, copy in enumerate(copies)]
        pid = os.posix_spawn(
            sys.executable, [sys.executable, "-I", "-S", "-c", _PROGRAM], os.environ, file_actions=actions
        )
    finally:
        for copy in copies:
            os.close(copy)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        # The caller reaps all of its children itself.
        return 0


def serve(request: Mapping[str, Any], make_engine: Callable[..., EngineBase]) -> None:
    """The other side: do what the request says, with an engine that is made here, and write the reply."""
    try:
        given = request["engine"]
        options = {name: given[name] for name in ("driver", "layers", "debug")}
        engine = make_engine(given["root"], **options, may_fork=True)
        value = getattr(engine, request["verb"])(*request["arguments"], **_options(request["options"]))
        reply: dict[str, Any] = {"value": _plain(value)}
    except Exception as error:
        reply = {"error": _encode_error(error)}
    os.write(_REPLY, json.dumps(reply).encode())


def _options(options: dict[str, Any]) -> dict[str, Any]:
    """Options as they were: JSON has made lists of mounts, which are tuples."""
    if "mounts" in options:
        from minidock.model.mounts import Mount

        options["mounts"] = [
            Mount(*_frozen(mount)) if isinstance(mount, list) else mount for mount in options["mounts"]
        ]
    return options


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """A result as JSON can hold it: a NamedTuple becomes a list, whose captured bytes stay with the caller."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return "" if isinstance(value, bytes) else value


def _encode_error(error: Exception) -> dict[str, Any]:
    if isinstance(error, errors.MinidockError):
        return {"class": type(error).__name__, **vars(error)}
    text = str(error)
    return {"class": "MinidockError", "message": f"unexpected {type(error).__name__}: {text}", "hint": ""}


def _decode_error(value: dict[str, Any]) -> errors.MinidockError:
    name = value.pop("class")
    cls = getattr(errors, name, errors.MinidockError)
    error: errors.MinidockError = cls(value.pop("message"), hint=value.pop("hint"))
    for key, content in value.items():
        setattr(error, key, content)
    return error
