"""The files and directories of one control group hierarchy: reading, writing, waiting and removing."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

_FREEZE_SECONDS = 10.0


def remove(path: str, deadline: float) -> None:
    """Remove a group and those below it, trying again while they are busy until the monotonic time ``deadline``.

    One that is gone is no error. Raises OSError.
    """
    pause = 0.001
    while True:
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in {errno.EBUSY, errno.ENOTEMPTY} or time.monotonic() > deadline:
                raise
        if not _remove_children(path, deadline):
            time.sleep(pause)
            pause = min(pause * 2, 0.05)


def _remove_children(path: str, deadline: float) -> bool:
    try:
        with os.scandir(path) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return True
    for child in children:
        remove(child, deadline)
    return bool(children)


def wait(reached: Callable[[], bool], path: str) -> None:
    """Poll until ``reached``. Raises OSError (ETIMEDOUT, naming ``path``) after 10 s."""
    deadline, pause = time.monotonic() + _FREEZE_SECONDS, 0.0005
    while not reached():
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), path)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def read(path: str) -> str:
    """The whole content of a file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
        return b"".join(chunks).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def write(path: str, text: str) -> None:
    """Write ``text`` in one call, as the kernel wants it. Raises OSError that says what was written where."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} (writing {text!r})", path) from None
    finally:
        os.close(fd)
