"""Locks: ``flock(2)`` on files that stay.

The holder's death frees a lock. A lock belongs to the open file description: a forked child that inherits the
descriptor keeps it held, and an explicit LOCK_UN in the child would free the parent's, so a lock is only ever released
by closing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PROBE_RETRIES = 20
_PROBE_PAUSE = 0.0005


def open_lock(path: str) -> int:
    """Open the lock file ``path``, made if it is missing; the descriptor is close-on-exec. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@contextmanager
def exclusive(path: str) -> Iterator[int]:
    """Hold the lock alone, waiting for it; gives the descriptor. Raises OSError."""
    fd = open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def try_passing(path: str) -> int | None:
    """As ``try_exclusive``, for a lock whose file goes with its holder, by ``end_passing``."""
    while True:
        fd = try_exclusive(path)
        if fd is None or is_at(path, fd):
            return fd
        os.close(fd)


def wait_passing(path: str) -> int:
    """As ``try_passing``, but waits for the lock. Raises OSError."""
    while True:
        fd = open_lock(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if is_at(path, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def end_passing(path: str, fd: int) -> None:
    """Remove the file of a lock that is held, and let go of it: whoever waited finds that it is gone, and asks anew."""
    try:
        if is_at(path, fd):
            os.unlink(path)
    finally:
        os.close(fd)


def is_at(path: str, fd: int) -> bool:
    """Whether what ``fd`` is open on is still what lies at ``path``."""
    try:
        now = os.lstat(path)
    except FileNotFoundError:
        return False
    held = os.fstat(fd)
    return (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino)


@contextmanager
def shared(path: str) -> Iterator[int]:
    """Hold the lock together with other shared holders, waiting for it; gives the descriptor. Raises OSError."""
    fd = open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield fd
    finally:
        os.close(fd)


def try_exclusive(path: str) -> int | None:
    """The descriptor of the lock held alone, or None when somebody holds it. The caller closes it. Raises OSError."""
    fd = open_lock(path)
    try:
        if try_lock(fd):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def try_lock(fd: int) -> bool:
    """Lock an open descriptor alone without waiting; False when somebody holds it.

    ``is_held`` takes the lock shared for an instant. A holder that lets a shared lock in is therefore asked again, for
    ten milliseconds at most, so that a probe never makes a taker believe that the lock has an owner.
    """
    for _ in range(_PROBE_RETRIES):
        if _flock_now(fd, fcntl.LOCK_EX):
            return True
        if not _flock_now(fd, fcntl.LOCK_SH):
            return False
        fcntl.flock(fd, fcntl.LOCK_UN)
        time.sleep(_PROBE_PAUSE)
    return False


def is_held(path: str) -> bool:
    """True when a process holds the lock alone; a missing lock file is free. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not _flock_now(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _flock_now(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            return False
        raise
    return True
