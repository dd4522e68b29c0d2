"""The monitor's loop: one thread, one poll over the container's output, its end, and the clients.

Output goes to the log first and then to every client; the container's input comes from any of them. The loop ends when
the container's first process has ended and its last output is in the log. Imports nothing beyond the interpreter's
core: a detached monitor has to stay small.
"""

from __future__ import annotations

import _socket
import os
import select
import time

from minidock.containers import frames
from minidock.containers.clients import Client

# The typing module would double what a small monitor takes of memory.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Protocol

    from minidock.containers.logs import LogWriter

    class Control(Protocol):
        """What clients may ask for; each raises OSError when it cannot be done."""

        def signal(self, number: int) -> None: ...

        def pause(self) -> None: ...

        def unpause(self) -> None: ...

        def resize(self, rows: int, columns: int) -> None: ...


_BUFFER = 1 << 18
_HUNG_UP_PAUSE = 0.1
_MAX_CLIENTS = 256
_LAST_SIGNAL = 64


class Relay:
    """``outputs`` maps descriptors to streams (1 or 2); ``stdin`` is -1 without input; a terminal's master is both.

    All descriptors are non-blocking. The relay owns ``outputs``, ``stdin`` and ``listener`` and closes them.
    """

    __slots__ = (
        "_buffer",
        "_hung_up",
        "_masks",
        "_poller",
        "_view",
        "clients",
        "control",
        "ended",
        "listener",
        "log",
        "outputs",
        "pidfd",
        "queue",
        "stdin",
        "terminal",
    )

    def __init__(
        self,
        *,
        pidfd: int,
        log: LogWriter,
        outputs: dict[int, int],
        stdin: int,
        listener: int,
        control: Control,
        terminal: bool,
    ) -> None:
        self.pidfd = pidfd
        self.log = log
        self.outputs = outputs
        self.stdin = stdin
        self.listener = listener
        self.control = control
        self.terminal = terminal
        self.ended = False
        self.clients: list[Client] = []
        self.queue: list[tuple[Client, bytes]] = []
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._hung_up: dict[int, float] = {}
        self._masks: dict[int, int] = {}
        self._poller = select.poll()

    def add(self, client: Client) -> None:
        self.clients.append(client)

    def run(self) -> None:
        """Relay until the container has ended and everything that it wrote is in the log."""
        ended = False
        while not ended:
            ready = self._wait()
            for fd in [fd for fd in self.outputs if ready.get(fd, 0) & ~select.POLLOUT]:
                self._output(fd)
            if ready.get(self.stdin):
                self._flush_stdin()
            self._serve(ready)
            ended = self.pidfd in ready
        self.ended = True
        self._drain()

    def finish(self, status: int, error: str) -> None:
        """Give every client the rest of the output and the EXIT frame, and wait until it has taken them or is gone."""
        if self.listener >= 0:
            self._accept()
            os.close(self.listener)
            self.listener = -1
        final = frames.frame(frames.EXIT, frames.STATUS.pack(status) + error.encode("utf-8", "backslashreplace"))
        for client in list(self.clients):
            client.final = final
            if not client.pump(self.log):
                self._drop(client)
        while self.clients:
            self._serve(self._wait())

    def close(self) -> None:
        """Close what leads to the container."""
        for fd in {*self.outputs, self.stdin} - {-1}:
            os.close(fd)
        self.outputs, self.stdin, self._hung_up = {}, -1, {}

    def _wait(self) -> dict[int, int]:
        """Poll once; the events by descriptor."""
        masks = dict.fromkeys((fd for fd in self.outputs if fd not in self._hung_up), int(select.POLLIN))
        if not self.ended:
            masks[self.pidfd] = select.POLLIN
        if self.listener >= 0 and len(self.clients) < _MAX_CLIENTS:
            masks[self.listener] = select.POLLIN
        if self.queue and self.stdin >= 0:
            masks[self.stdin] = masks.get(self.stdin, 0) | select.POLLOUT
        for client in self.clients:
            masks[client.fd] = select.POLLIN | (select.POLLOUT if client.wants_to_send(self.log.count) else 0)
        if masks != self._masks:
            self._masks, self._poller = masks, select.poll()
            for fd, mask in masks.items():
                self._poller.register(fd, mask)
        ready = dict(self._poller.poll(_HUNG_UP_PAUSE * 1000 if self._hung_up else None))
        if self._hung_up:
            now = time.monotonic()
            self._hung_up = {fd: until for fd, until in self._hung_up.items() if until > now}
        return ready

    def _output(self, fd: int) -> bool:
        """Take one piece from the container; False when there is none."""
        try:
            size = os.readv(fd, (self._buffer,))
        except BlockingIOError:
            return False
        except OSError:
            # EIO: no process has the terminal open at the moment. One may open it again.
            self._hung_up[fd] = time.monotonic() + _HUNG_UP_PAUSE
            return False
        if not size:
            self.outputs.pop(fd)
            os.close(fd)
            return False
        stream, data = self.outputs[fd], self._view[:size]
        recorded = self.log.append(stream, data)
        header = frames.HEADER.pack(stream, size)
        for client in [c for c in self.clients if not c.deliver(header, data, self.log, recorded=recorded)]:
            self._drop(client)
        return True

    def _drain(self) -> None:
        for fd in list(self.outputs):
            while fd in self.outputs and self._output(fd):
                continue

    def _serve(self, ready: dict[int, int]) -> None:
        if self.listener >= 0 and self.listener in ready:
            self._accept()
        for client in list(self.clients):
            events = ready.get(client.fd, 0)
            if not events:
                continue
            received = client.receive() if events & ~select.POLLOUT else []
            ok = received is not None and all(self._handle(client, kind, payload) for kind, payload in received)
            if not ok or (client.wants_to_send(self.log.count) and not client.pump(self.log)):
                self._drop(client)

    def _accept(self) -> None:
        listener = _socket.socket(fileno=self.listener)
        try:
            while len(self.clients) < _MAX_CLIENTS:
                try:
                    fd, _ = listener._accept()  # type: ignore[attr-defined]
                except OSError:
                    return
                os.set_blocking(fd, False)
                self.clients.append(Client(fd))
        finally:
            listener.detach()

    def _drop(self, client: Client) -> None:
        if client not in self.clients:
            return
        self.clients.remove(client)
        if client.once:
            self.queue.append((client, b""))
            self._flush_stdin()
        client.close()

    def _handle(self, client: Client, kind: int, payload: bytes) -> bool:
        """Do what one frame asks for; False for a client that breaks the rules."""
        if kind == frames.STDIN:
            client.outstanding += 1
            if client.outstanding > frames.WINDOW:
                return False
            if not payload:
                return False
            self.queue.append((client, payload))
            self._flush_stdin()
        elif kind == frames.STDIN_EOF:
            if client.once:
                self.queue.append((client, b""))
                self._flush_stdin()
        elif kind == frames.ATTACH:
            client.attached, client.number = True, self.log.count
        elif kind == frames.RESIZE and len(payload) == frames.SIZE.size:
            if self.terminal:
                self._ask(client, "resize", *frames.SIZE.unpack(payload), quiet=True)
        elif kind == frames.REQUEST and len(payload) <= frames.MAX_CONTROL:
            self._request(client, payload.decode("ascii", "replace").split())
        else:
            return False
        return True

    def _request(self, client: Client, words: list[str]) -> None:
        if len(words) == 2 and words[0] == "signal" and words[1].isdigit() and int(words[1]) <= _LAST_SIGNAL:
            self._ask(client, "signal", int(words[1]))
        elif words in (["pause"], ["unpause"]):
            self._ask(client, words[0])
        else:
            client.extra += frames.frame(frames.REPLY, b"this monitor does not know that request")

    def _ask(self, client: Client, verb: str, *arguments: int, quiet: bool = False) -> None:
        answer = b""
        try:
            if self.ended:
                # Its record is final, and by now perhaps another monitor's.
                raise ProcessLookupError
            getattr(self.control, verb)(*arguments)
        except ProcessLookupError:
            answer = b"it has ended"
        except OSError as error:
            answer = (error.strerror or str(error)).lower().encode()
        if not quiet:
            client.extra += frames.frame(frames.REPLY, answer)

    def _flush_stdin(self) -> None:
        """Give the container what its input pipe or terminal takes; each frame that is through earns a CREDIT."""
        while self.queue:
            client, data = self.queue[0]
            if not data:
                self._end_stdin()
            elif self.stdin >= 0:
                try:
                    written = os.write(self.stdin, data)
                except BlockingIOError:
                    return
                except OSError:
                    self._end_stdin(force=True)
                    continue
                if written < len(data):
                    self.queue[0] = (client, data[written:])
                    return
            self.queue.pop(0)
            if data:
                client.outstanding -= 1
                client.extra += frames.frame(frames.CREDIT)

    def _end_stdin(self, *, force: bool = False) -> None:
        """Close the container's input. A terminal has no end of its own: it is the output as well."""
        if self.stdin < 0 or (self.terminal and not force):
            return
        if self.stdin not in self.outputs:
            os.close(self.stdin)
        self.stdin = -1
