"""Programs of the host that end with their caller, and all that they have started with them.

The program is the first process of a pid namespace: when it goes, the kernel kills whatever it started, and it goes
when its caller does, however that ends (pid_namespaces(7); prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Mapping, Sequence

from minidock.kernel import process
from minidock.kernel.namespaces import CLONE_NEWPID

NOT_FOUND = 127
NOT_STARTED = 126
_BLOCK = 1 << 16


class Program(process.Child):
    """A program under way; ``output`` and ``errors`` are descriptors to read from (-1 where both are one), closed at
    the end of a ``with``, which kills what still runs."""

    __slots__ = ("errors", "output")

    def __init__(self, child: process.Child, output: int, errors: int) -> None:
        super().__init__(child.pid, child.pidfd)
        self.output = output
        self.errors = errors

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.output, self.errors):
            if fd >= 0:
                os.close(fd)
        self.output = self.errors = -1
        try:
            process.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self.wait()
        except (ProcessLookupError, ChildProcessError):
            pass
        self.close()

    def read(self, *, limit: int) -> tuple[bytes, bytes]:
        """What it writes to its output and apart from it, to their ends; of each no more than ``limit`` bytes is kept.

        Raises OSError.
        """
        kept = {self.output: bytearray(), self.errors: bytearray()}
        poll = select.poll()
        for fd in kept:
            poll.register(fd, select.POLLIN)
        left = set(kept)
        while left:
            for fd, _ in poll.poll():
                data = os.read(fd, _BLOCK)
                kept[fd] += data[: max(limit - len(kept[fd]), 0)]
                if not data:
                    poll.unregister(fd)
                    left.remove(fd)
        return bytes(kept[self.output]), bytes(kept[self.errors])


def start_program(arguments: Sequence[str], *, environment: Mapping[str, str], directory: str, apart: bool) -> Program:
    """Start a program that is looked for in the environment's PATH, with nothing on standard input, umask 022, signals
    as a program expects them and no other descriptor. What it writes to standard error comes with its output, or
    ``apart`` from it.

    Its exit status is 127 where it is not there, 126 where it cannot be executed. Raises OSError.
    """
    output, out = os.pipe2(os.O_CLOEXEC)
    errors, err = os.pipe2(os.O_CLOEXEC) if apart else (-1, out)

    def child() -> int:
        process.set_pdeathsig(signal.SIGKILL)
        null = os.open("/dev/null", os.O_RDONLY)
        for number, fd in enumerate((null, out, err)):
            os.dup2(fd, number)
        process.close_from(3)
        process.setsid()
        process.reset_signals()
        os.umask(0o022)
        try:
            os.chdir(directory)
            os.execvpe(arguments[0], list(arguments), dict(environment))
        except FileNotFoundError:
            return NOT_FOUND
        except OSError:
            return NOT_STARTED

    try:
        return Program(process.spawn(child, flags=CLONE_NEWPID), output, errors)
    except BaseException:
        for fd in {output, errors} - {-1}:
            os.close(fd)
        raise
    finally:
        for fd in {out, err}:
            os.close(fd)
