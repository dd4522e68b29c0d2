"""The client of a monitor: copies between the caller's descriptors and a container, and asks the monitor for things.

It never prints: what it copies goes to the descriptors that it is given.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from minidock.containers import frames
from minidock.errors import ConflictError
from minidock.kernel import tty

if TYPE_CHECKING:
    from minidock.store.layout import DataRoot

SOCKET = "attach"
DETACH_KEYS = b"\x10\x11"
# What a person presses or sends to end a command: held back between a start and the moment it can be passed on.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

# Freezing a large container takes its time.
REPLY_SECONDS = 15.0

_PIECE = 1 << 18
_NOT_FORWARDED = ("KILL", "STOP", "CHLD", "PIPE", "URG", "WINCH", "TTIN", "TTOU", "SEGV", "BUS", "FPE", "ILL", "TRAP")


class Outcome(NamedTuple):
    """How an attachment ended: the exit status, or None when the user detached or the monitor was killed (``lost``)."""

    status: int | None
    detached: bool = False
    lost: bool = False


def connect(root: DataRoot, container_id: str) -> int:
    """A connection to the container's monitor. Raises ConflictError when there is none."""
    try:
        directory = os.open(root.container_run_dir(container_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            try:
                connection.connect(f"/proc/self/fd/{directory}/{SOCKET}")
            except BaseException:
                connection.close()
                raise
            return connection.detach()
        finally:
            os.close(directory)
    except (FileNotFoundError, ConnectionRefusedError):
        raise ConflictError(f"container {container_id[:12]} is not running") from None


def request(root: DataRoot, container_id: str, words: str, *, timeout: float = REPLY_SECONDS) -> None:
    """Ask the monitor for one thing (``signal 15``, ``pause``, ``unpause``).

    Raises ConflictError with its answer, or when there is none within ``timeout`` seconds.
    """
    connection = connect(root, container_id)
    try:
        _send(connection, frames.frame(frames.REQUEST, words.encode()))
        for kind, payload in _frames(connection, time.monotonic() + timeout):
            if kind == frames.REPLY:
                if payload:
                    raise ConflictError(f"cannot {words} container {container_id[:12]}: {payload.decode()}")
                return
        raise ConflictError(f"container {container_id[:12]} is not running: it has just ended")
    except TimeoutError:
        raise ConflictError(
            f"cannot {words} container {container_id[:12]}: its monitor does not answer",
            hint="minidock rm -f ends it with its monitor",
        ) from None
    except (BrokenPipeError, ConnectionResetError):
        raise ConflictError(f"container {container_id[:12]} is not running: it has just ended") from None
    finally:
        os.close(connection)


def wait_for_end(root: DataRoot, container_id: str, *, timeout: float | None = None) -> bool:
    """Wait until the monitor has taken the container down; False when ``timeout`` seconds were not enough."""
    try:
        connection = connect(root, container_id)
    except ConflictError:
        return True
    try:
        return exit_status(connection, timeout=timeout) != -1
    finally:
        os.close(connection)


def exit_status(connection: int, *, timeout: float | None = None) -> int | None:
    """Read up to the EXIT frame: the status, None when the monitor was killed, -1 when ``timeout`` has passed."""
    deadline = None if timeout is None else time.monotonic() + timeout
    reader = frames.Reader(limit=1 << 30)
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poller.poll(left):
            return -1
        try:
            data = os.read(connection, _PIECE)
        except ConnectionResetError:
            return None
        if not data:
            return None
        for kind, payload in reader.feed(data):
            if kind == frames.EXIT:
                return int(frames.STATUS.unpack_from(payload)[0])


class Session:
    """One attachment: ``stdin`` is -1 for none; ``terminal`` says that the container has one.

    With ``terminal`` and a ``stdin`` that is a terminal it is put in raw mode, its size is passed on, and
    ``detach_keys`` leave. With ``proxy`` the caller's signals go to the container. The connection stays the caller's.
    """

    __slots__ = (
        "_keys_seen",
        "_out",
        "_window",
        "connection",
        "detach_keys",
        "proxy",
        "stderr",
        "stdin",
        "stdout",
        "terminal",
    )

    def __init__(
        self,
        connection: int,
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        terminal: bool,
        proxy: bool = True,
        detach_keys: bytes = DETACH_KEYS,
    ) -> None:
        self.connection = connection
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.terminal = terminal
        self.proxy = proxy
        self.detach_keys = detach_keys
        self._out = bytearray()
        self._window = frames.WINDOW
        self._keys_seen = 0

    def run(self, *, attach: bool = False) -> Outcome:
        """Copy until the container ends, the user detaches or the monitor dies.

        ``attach`` asks for the output first, on a connection that the starter did not already attach. Raises OSError
        when the caller's own descriptors fail (BrokenPipeError: nobody reads what the container writes); the container
        goes on.
        """
        os.set_blocking(self.connection, False)
        if attach:
            self._send(frames.frame(frames.ATTACH))
        with self._prepared():
            return self._loop()

    def _loop(self) -> Outcome:
        reader = frames.Reader(limit=1 << 30)
        poller = select.poll()
        masks: dict[int, int] = {}
        while True:
            wanted = {self.connection: select.POLLIN | (select.POLLOUT if self._out else 0)}
            if self.stdin >= 0 and self._window and len(self._out) < frames.MAX_STDIN:
                wanted[self.stdin] = select.POLLIN
            if wanted != masks:
                masks, poller = wanted, select.poll()
                for fd, mask in wanted.items():
                    poller.register(fd, mask)
            ready = dict(poller.poll())
            if self.stdin in ready and self._take_input():
                self._flush()
                return Outcome(None, detached=True)
            if ready.get(self.connection, 0) & select.POLLOUT:
                self._flush()
            if ready.get(self.connection, 0) & ~select.POLLOUT:
                outcome = self._receive(reader)
                if outcome is not None:
                    return outcome

    def _receive(self, reader: frames.Reader) -> Outcome | None:
        try:
            data = os.read(self.connection, _PIECE)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            data = b""
        if not data:
            return Outcome(None, lost=True)
        for kind, payload in reader.feed(data):
            if kind == frames.STDOUT:
                _write_all(self.stdout, payload)
            elif kind == frames.STDERR:
                _write_all(self.stderr, payload)
            elif kind == frames.CREDIT:
                self._window += 1
            elif kind == frames.EXIT:
                return Outcome(int(frames.STATUS.unpack_from(payload)[0]))
        return None

    def _take_input(self) -> bool:
        """Pass on one piece of input; True when the detach keys were in it."""
        try:
            data = os.read(self.stdin, frames.MAX_STDIN)
        except OSError:
            # EIO: a terminal that has hung up, or of which this process is in the background.
            data = b""
        if not data:
            self._send(frames.frame(frames.STDIN_EOF))
            self.stdin = -1
            return False
        detach = False
        if self.terminal and self.detach_keys:
            data, detach = self._filter_keys(data)
        if data:
            self._window -= 1
            self._send(frames.frame(frames.STDIN, data))
        return detach

    def _filter_keys(self, data: bytes) -> tuple[bytes, bool]:
        """Hold the detach keys back as long as they may become the whole sequence."""
        passed = bytearray()
        for byte in data:
            if byte == self.detach_keys[self._keys_seen]:
                self._keys_seen += 1
                if self._keys_seen == len(self.detach_keys):
                    self._keys_seen = 0
                    return bytes(passed), True
                continue
            passed += self.detach_keys[: self._keys_seen]
            self._keys_seen = int(byte == self.detach_keys[0])
            if not self._keys_seen:
                passed.append(byte)
        return bytes(passed), False

    def _send(self, data: bytes) -> None:
        """Queue and send what the socket takes. Signal handlers call this too, at any moment."""
        self._out += data
        self._flush()

    def _flush(self) -> None:
        while self._out:
            try:
                written = os.write(self.connection, bytes(self._out[:_PIECE]))
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                # The monitor is gone; reading the connection will tell.
                self._out.clear()
                return
            del self._out[:written]

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """Raw mode, the size and the signals, all restored at the end."""
        with contextlib.ExitStack() as stack:
            if self.terminal and self.stdin >= 0 and os.isatty(self.stdin):
                stack.enter_context(tty.raw_mode(self.stdin))
            size_fd = self._size_fd()
            if size_fd >= 0:
                self._send_size(size_fd)
                stack.enter_context(_handling({signal.SIGWINCH: lambda *_: self._send_size(size_fd)}))
            if self.proxy:
                stack.enter_context(_handling(dict.fromkeys(_forwarded(), self._forward)))
            release_signals()
            yield

    def _size_fd(self) -> int:
        if not self.terminal:
            return -1
        return next((fd for fd in (self.stdout, self.stdin) if fd >= 0 and os.isatty(fd)), -1)

    def _send_size(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            self._send(frames.frame(frames.RESIZE, frames.SIZE.pack(*tty.get_winsize(fd))))

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        self._send(frames.frame(frames.REQUEST, f"signal {number}".encode()))


def hold_signals() -> None:
    """Hold back what would end the caller, until ``release_signals``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)


def release_signals() -> None:
    """Let what was held back through; nothing changes where nothing is."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


@contextlib.contextmanager
def _handling(handlers: dict[signal.Signals, object]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _forwarded() -> list[signal.Signals]:
    """All signals but those that cannot be handled, speak of this process itself, or stop it in the background."""
    kept = {getattr(signal, f"SIG{name}") for name in _NOT_FORWARDED}
    return [number for number in signal.valid_signals() if number not in kept]


def _write_all(fd: int, data: bytes) -> None:
    """Write everything, waiting where the descriptor does not block. Raises OSError."""
    if fd < 0:
        return
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()


def _send(connection: int, data: bytes) -> None:
    while data:
        data = data[os.write(connection, data) :]


def _frames(connection: int, deadline: float) -> Iterator[tuple[int, bytes]]:
    reader = frames.Reader(limit=1 << 30)
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    while True:
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        data = os.read(connection, _PIECE)
        if not data:
            return
        yield from reader.feed(data)
