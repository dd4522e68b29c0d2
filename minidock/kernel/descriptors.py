"""Descriptors that a thread makes which stands elsewhere, with a root, directory and mount namespace of its own.

A thread and not a child: it shares the descriptors, so that none has to be sent, and the process is never forked, which
a program with threads of its own, or with its own use of SIGCHLD, could not bear (unshare(2), setns(2): both are the
calling thread's alone).
"""

from __future__ import annotations

import _thread
import errno
from collections.abc import Callable

from minidock.kernel.namespaces import CLONE_FS, unshare
from minidock.kernel.process import signals_blocked


def from_thread(make: Callable[[], list[int]], *, flags: int = 0) -> list[int]:
    """Run ``make`` in a thread that shares neither root nor current directory with any other, in new namespaces of the
    CLONE_NEW* kinds in ``flags``, and take the descriptors that it returns; what it raises is raised here.

    ``make`` closes what it has opened when it fails, and imports nothing once it has left the caller's files. Raises
    OSError, EAGAIN where no thread can be started (pthread_create(3)).
    """
    ended = _thread.allocate_lock()
    made: list[int] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            unshare(CLONE_FS | flags)
            made.extend(make())
        except BaseException as error:
            failed.append(error)
        finally:
            ended.release()

    ended.acquire()
    with signals_blocked():
        try:
            _thread.start_new_thread(run, ())
        except RuntimeError:
            raise OSError(errno.EAGAIN, "no thread can be started") from None
        ended.acquire()
    if failed:
        raise failed[0]
    return made
