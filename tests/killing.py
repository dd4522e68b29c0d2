"""Work that is killed after so many calls to the system."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def killed_after(events: int, work: Callable[[], Any]) -> bool:
    """Do the work in a child that kills itself after so many calls to the system; False when it got to the end."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(name: str, _: Any) -> None:
            nonlocal count
            if name.startswith(("open", "os.")) and name != "os.kill":
                count += 1
                if count > events:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
        except BaseException:
            os._exit(2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
