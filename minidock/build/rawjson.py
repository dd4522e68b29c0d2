"""Progress for programs: BuildKit's ``--progress=rawjson``, one JSON object a line (buildkit, client/graph.go,
``SolveStatus``).

An object holds one of: ``vertexes`` (``digest``, ``name``, ``started``, ``completed``, ``cached``, ``error``; told
anew at each change, ``digest`` says of which), ``statuses`` (``current`` bytes that a step has copied), ``logs``
(``data`` is base64 of a step's output) and ``warnings`` (``short`` is base64 of the text). Times are RFC 3339 in UTC.
"""

from __future__ import annotations

import binascii
import json
import time
from typing import TYPE_CHECKING, Any

from minidock.model.digest import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.build.progress import StepProgress

_COPYING = "transferring"
_CANCELED = "context canceled"


class RawJsonProgress:
    """Tells every event to ``write`` as a line of JSON."""

    __slots__ = ("_count", "_write")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._count = 0

    def step(self, title: str) -> StepProgress:
        self._count += 1
        # Steps of one title are still two: BuildKit's digest is of the whole operation.
        digest = digest_of(f"{self._count} {title}".encode("utf-8", "surrogatepass"))
        return _RawStep({"digest": digest, "name": title, "started": _now()}, self._tell)

    def tick(self) -> None:
        return

    def warning(self, message: str) -> None:
        self._tell("warnings", {"level": 1, "short": _base64(message.encode("utf-8", "backslashreplace"))})

    def _tell(self, kind: str, value: dict[str, Any]) -> None:
        self._write(json.dumps({kind: [value]}, separators=(",", ":")).encode() + b"\n")


class _RawStep:
    __slots__ = ("_tell", "_vertex")

    def __init__(self, vertex: dict[str, Any], tell: Callable[[str, dict[str, Any]], None]) -> None:
        self._vertex = vertex
        self._tell = tell
        tell("vertexes", vertex)

    def output(self, data: bytes) -> None:
        log = {"vertex": self._vertex["digest"], "stream": 1, "data": _base64(data), "timestamp": _now()}
        self._tell("logs", log)

    def copied(self, count: int) -> None:
        digest, started = self._vertex["digest"], self._vertex["started"]
        status = {"id": _COPYING, "vertex": digest, "current": count, "timestamp": _now(), "started": started}
        self._tell("statuses", status)

    def missed(self, reason: str) -> None:
        self.output(f"miss: {reason}\n".encode("utf-8", "backslashreplace"))

    def done(self) -> None:
        self._end()

    def cached(self) -> None:
        self._end(cached=True)

    def canceled(self) -> None:
        self._end(error=_CANCELED)

    def error(self, message: str) -> None:
        self._end(error=message)

    def _end(self, **how: Any) -> None:
        self._tell("vertexes", {**self._vertex, "completed": _now(), **how})


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _now() -> str:
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
