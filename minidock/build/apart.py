"""A stage in a process of its own, which tells the builder how it goes through a pipe: a line of JSON at a time.

The process ends when the builder has taken note of the result: until then it keeps what it made from being removed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from minidock import errors
from minidock.build.events import EventProgress, Relay
from minidock.build.tools import Outcome, StageResult
from minidock.errors import BuildError, DockerfileError, MinidockError
from minidock.kernel import namespaces, process
from minidock.model.oci import Descriptor
from minidock.store.files import write_all

if TYPE_CHECKING:
    from minidock.build.progress import Progress, StepProgress
    from minidock.build.tools import OpenTools, Rest

_CHUNK = 65536
# Each takes down what the process has under way.
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _write(fd: int, kind: str, value: dict[str, Any]) -> None:
    write_all(fd, json.dumps({kind: value}).encode() + b"\n")


def _described(error: Exception) -> dict[str, Any]:
    if isinstance(error, DockerfileError):
        fields: tuple[str, ...] = ("message", "filename", "line", "end_line", "excerpt", "hint")
        if isinstance(error, BuildError):
            fields += ("status", "output", "kept")
    elif isinstance(error, MinidockError):
        fields = ("message", "hint")
    elif isinstance(error, OSError):
        fields = ("errno", "strerror", "filename")
    else:
        import traceback

        return {"kind": "RuntimeError", "message": "".join(traceback.format_exception(error))}
    return {"kind": type(error).__name__, **{name: getattr(error, name) for name in fields}}


def _raised(kind: str, **fields: Any) -> Exception:
    if kind == "RuntimeError":
        return RuntimeError(fields["message"])
    if "errno" in fields:
        return OSError(fields["errno"], fields["strerror"], fields["filename"])
    found: Exception = getattr(errors, kind)(fields.pop("message"), **fields)
    return found


class Receiver:
    """The builder's side of the pipe ``fd``: passes on to ``progress`` what the process tells of its steps.

    ``result`` or ``failure`` (what to raise) is set when the process has come to its end; neither, with ``ended``, when
    it was killed.
    """

    __slots__ = ("_relay", "_rest", "ended", "failure", "fd", "result")

    def __init__(self, fd: int, progress: Progress, current: StepProgress) -> None:
        self.fd = fd
        self.ended = False
        self.result: StageResult | None = None
        self.failure: Exception | None = None
        self._rest = b""
        self._relay = Relay(progress)
        self._relay.adopt(current)

    def receive(self) -> None:
        """Take what has come; waits if nothing has. Raises OSError."""
        chunk = os.read(self.fd, _CHUNK)
        if not chunk:
            self.end()
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            # Events are arrays.
            if line.startswith(b"{"):
                self._take(**json.loads(line))
            else:
                self._relay.feed(line + b"\n")

    def end(self) -> None:
        """Nothing more is taken: the steps that it had under way are told as canceled."""
        self.ended = True
        self._relay.close()

    def _take(self, *, result: dict[str, Any] | None = None, failure: dict[str, Any] | None = None) -> None:
        if failure is not None:
            self.failure = _raised(**failure)
        elif result is not None:
            self.result = StageResult(
                tuple(
                    Descriptor(kind, digest, size, tuple(map(tuple, pairs)))
                    for kind, digest, size, pairs in result["layers"]
                ),
                tuple(result["diff_ids"]),
                tuple(Outcome(*outcome) for outcome in result["outcomes"]),
                result["created"],
            )


class Running:
    """A process at work on a stage, the builder's side."""

    __slots__ = ("_child", "_keeps", "receiver")

    def __init__(self, child: process.Child, receiver: Receiver, keeps: int) -> None:
        self._child = child
        self._keeps = keeps
        self.receiver = receiver

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            process.pidfd_send_signal(self._child.pidfd, number)

    def drain(self, deadline: float) -> None:
        """Pass on what it says until its death, or until the deadline (of the monotonic clock)."""
        self._dismiss()
        while (left := deadline - time.monotonic()) > 0 and not self.receiver.ended:
            ready, _, _ = select.select([self.receiver.fd, self._child.pidfd], [], [], left)
            if self.receiver.fd in ready:
                self.receiver.receive()
            elif ready:
                break
        self.receiver.end()

    def close(self) -> None:
        """Let it end, wait for that, and let go of it."""
        self._dismiss()
        self._child.wait()
        self._child.close()
        os.close(self.receiver.fd)

    def _dismiss(self) -> None:
        # A word, as the end of the pipe is also held by processes that were made later.
        if self._keeps >= 0:
            with suppress(BrokenPipeError):
                os.write(self._keeps, b"\n")
            os.close(self._keeps)
            self._keeps = -1


def start(rest: Rest, open_tools: OpenTools, progress: Progress, current: StepProgress) -> Running:
    """Do ``rest``, which begins with the step ``current``, in a new process. Raises OSError."""
    said, says = os.pipe2(os.O_CLOEXEC)
    kept, keeps = os.pipe2(os.O_CLOEXEC)
    builder = namespaces.pidfd_open(os.getpid())

    def child() -> None:
        os.close(said)
        os.close(keeps)
        _work(says, kept, builder, rest, open_tools)

    born = None
    try:
        born = process.spawn(child)
        for fd in (says, kept, builder):
            os.close(fd)
        return Running(born, Receiver(said, progress, current), keeps)
    except BaseException:
        for fd in (said, keeps) if born is not None else (said, keeps, says, kept, builder):
            os.close(fd)
        if born is not None:
            # Nobody else knows of it.
            with suppress(ProcessLookupError):
                process.pidfd_send_signal(born.pidfd, signal.SIGKILL)
            born.wait()
            born.close()
        raise


def _work(says: int, kept: int, builder: int, rest: Rest, open_tools: OpenTools) -> None:
    """In the new process: all the rest of the stage."""
    # Ctrl-C is the builder's, which tells this process once.
    os.setpgid(0, 0)
    for number in _ENDS:
        # Also where the command was started with the keyboard's signal ignored, as a shell does in the background.
        signal.signal(number, signal.default_int_handler)
    process.set_pdeathsig(signal.SIGKILL)
    if select.select([builder], [], [], 0)[0]:
        return
    progress = EventProgress(lambda line: write_all(says, line))
    try:
        with open_tools(progress) as tools:
            _write(says, "result", rest(tools, progress.continued())._asdict())
            # The builder says so when it leans on what was made.
            os.read(kept, 1)
    except Exception as error:
        _write(says, "failure", _described(error))
