"""Copies between the caller's descriptors and a command in a container.

The command never gets the caller's own descriptors: through a terminal of the host it could type into it (TIOCSTI).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from minidock.kernel import tty
from minidock.runtime.context import Stdio

if TYPE_CHECKING:
    from minidock.runtime.launch import Started

_PIECE = 1 << 16
_WINSIZE = (24, 80)


class Ending(Protocol):
    """``pidfd`` becomes readable at the end."""

    @property
    def pidfd(self) -> int: ...


class Begun(Protocol):
    """A command that was started: the master of its pty or -1, what ends with it, and its exit status."""

    @property
    def console(self) -> int: ...

    @property
    def waiter(self) -> Ending: ...

    def wait(self) -> int: ...


class _Attended(NamedTuple):
    """A container's first process, whose exit status is asked for elsewhere."""

    waiter: Started

    @property
    def console(self) -> int:
        return self.waiter.console

    def wait(self) -> int:
        return 0


class Pump:
    """One command's input and output. ``stdin`` is -1 for none; with ``terminal`` all go through a pty of its own."""

    __slots__ = ("_pending", "_sinks", "_target", "stderr", "stdin", "stdout", "terminal")

    def __init__(self, *, stdin: int, stdout: int, stderr: int, terminal: bool) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.terminal = terminal
        self._sinks: dict[int, int] = {}
        self._target = -1
        self._pending = b""

    def run(self, begin: Callable[[Stdio], Begun]) -> int:
        """Start the command with ``begin`` and copy until it ends; its exit status.

        What its own children write later is not waited for. Raises what ``begin`` raises, and OSError when the
        caller's descriptors fail.
        """
        with contextlib.ExitStack() as stack:
            started = self._begin_terminal(begin) if self.terminal else self._begin_pipes(begin, stack)
            try:
                self._own(started.console, stack)
                if self.terminal:
                    stack.enter_context(self._raw(started.console))
                for fd in (*self._sinks, self._target):
                    if fd >= 0:
                        os.set_blocking(fd, False)
                self._copy(started.waiter.pidfd)
            finally:
                status = started.wait()
            return status

    def _begin_terminal(self, begin: Callable[[Stdio], Begun]) -> Begun:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            started = begin(Stdio(nothing, nothing, nothing, terminal=True, winsize=self._size()))
        finally:
            os.close(nothing)
        self._sinks = {started.console: self.stdout}
        self._target = started.console if self.stdin >= 0 else -1
        return started

    def _begin_pipes(self, begin: Callable[[Stdio], Begun], stack: contextlib.ExitStack) -> Begun:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        in_read, in_write = (
            os.pipe2(os.O_CLOEXEC) if self.stdin >= 0 else (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1)
        )
        for fd in (out_read, err_read):
            self._own(fd, stack)
        self._sinks = {out_read: self.stdout, err_read: self.stderr}
        self._target = in_write
        stack.callback(self._end_input)
        try:
            return begin(Stdio(in_read, out_write, err_write))
        finally:
            for fd in (in_read, out_write, err_write):
                os.close(fd)

    @staticmethod
    def _own(fd: int, stack: contextlib.ExitStack) -> None:
        if fd >= 0:
            stack.callback(os.close, fd)

    def _end_input(self) -> None:
        if self._target >= 0 and self._target not in self._sinks:
            os.close(self._target)
        self._target = -1

    def _copy(self, pidfd: int) -> None:
        """Copy until the command has ended, and then what is left in its pipes."""
        ended = False
        while not ended:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            for fd in self._sinks:
                poller.register(fd, select.POLLIN | (select.POLLOUT if self._pending and fd == self._target else 0))
            if self._target >= 0 and self._pending and self._target not in self._sinks:
                poller.register(self._target, select.POLLOUT)
            if self._target >= 0 and not self._pending:
                poller.register(self.stdin, select.POLLIN)
            ready = {fd for fd, _ in poller.poll()}
            for fd in [fd for fd in self._sinks if fd in ready]:
                self._output(fd)
            if self._target >= 0 and self._pending:
                self._input()
            elif self._target >= 0 and self.stdin in ready:
                self._read_input()
            ended = pidfd in ready
        for fd in list(self._sinks):
            while fd in self._sinks and self._output(fd):
                continue

    def _output(self, fd: int) -> bool:
        """Copy one piece of output; False when there is none."""
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: nobody has the terminal open any more.
            data = b""
        if not data:
            if fd == self._target:
                self._target = -1
            del self._sinks[fd]
            return False
        sink = self._sinks[fd]
        while data:
            data = data[os.write(sink, data) :]
        return True

    def _read_input(self) -> None:
        try:
            data = os.read(self.stdin, _PIECE)
        except OSError:
            data = b""
        if data:
            self._pending = data
            self._input()
        else:
            self._end_input()

    def _input(self) -> None:
        try:
            self._pending = self._pending[os.write(self._target, self._pending) :]
        except BlockingIOError:
            return
        except OSError:
            # The command has closed its input.
            self._pending = b""
            self._end_input()

    def _size(self) -> tuple[int, int]:
        fd = self._terminal_fd()
        return tty.get_winsize(fd) if fd >= 0 else _WINSIZE

    def _terminal_fd(self) -> int:
        return next((fd for fd in (self.stdout, self.stdin) if fd >= 0 and os.isatty(fd)), -1)

    @contextlib.contextmanager
    def _raw(self, console: int) -> Iterator[None]:
        """The caller's terminal in raw mode, its size passed on, restored at the end."""
        with contextlib.ExitStack() as stack:
            if self.stdin >= 0 and os.isatty(self.stdin):
                stack.enter_context(tty.raw_mode(self.stdin))
            source = self._terminal_fd()
            if source >= 0:

                def pass_size_on(*_: object) -> None:
                    with contextlib.suppress(OSError):
                        tty.set_winsize(console, *tty.get_winsize(source))

                before = signal.signal(signal.SIGWINCH, pass_size_on)
                stack.callback(signal.signal, signal.SIGWINCH, before)
                pass_size_on()
            yield


def attend(begin: Callable[[Stdio], Started], *, stdin: int, stdout: int) -> Started:
    """Start a container's first process with ``begin`` on a pty that is joined to ``stdin`` and ``stdout``, and wait
    for its end. Raises what ``begin`` raises, OSError."""
    begun: list[Started] = []

    def start(stdio: Stdio) -> _Attended:
        begun.append(begin(stdio))
        return _Attended(begun[0])

    Pump(stdin=stdin, stdout=stdout, stderr=stdout, terminal=True).run(start)
    return begun[0]
