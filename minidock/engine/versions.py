"""``version``: what minidock is and what it stands on."""

from __future__ import annotations

import os
import platform

from minidock import __version__


def versions() -> dict[str, str]:
    """The versions under the names that are printed."""
    host = os.uname()
    return {
        "Version": __version__,
        "PythonVersion": platform.python_version(),
        "KernelVersion": host.release,
        "Os": host.sysname.lower(),
        "Arch": host.machine,
    }
