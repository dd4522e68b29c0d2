"""Kernel parameters as ``--sysctl`` has them: ``NAME=VALUE`` for those that belong to a namespace of the container's.

A value is one value, whatever it holds: nothing in it is ever split (CVE-2022-0811). A name may have slashes in place
of dots, as sysctl(8) has it: ``net/ipv4/conf/eth0.7/forwarding``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from minidock.errors import UsageError

_IPC = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]*"
_PATH = re.compile(rf"{_PART}(/{_PART})+")
_HINT = "net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm* are, in the form NAME=VALUE"


def parse_sysctl(text: str, *, network: str) -> tuple[str, str]:
    """Read one parameter: its name as the runtime spec has it, and its value.

    The name has dots, or slashes where a part of it holds a dot. ``network`` is the container's: with the host's
    network ``net.*`` is the host's too. Raises UsageError, naming the text, for a parameter that is not the container's
    own.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"invalid sysctl {text!r}", hint="the form is NAME=VALUE")
    dot, slash = name.find("."), name.find("/")
    path = name if slash >= 0 and (slash < dot or dot < 0) else name.replace(".", "/")
    if not _PATH.fullmatch(path) or "\0" in value:
        raise UsageError(f"invalid sysctl {text!r}: it names no kernel parameter", hint="the form is NAME=VALUE")
    if path.startswith("net/"):
        if network == "host":
            raise UsageError(
                f"sysctl {name} is not allowed with --network host: it would change the host's", hint=_HINT
            )
    elif not (path.startswith("fs/mqueue/") or path.replace("/", ".") in _IPC):
        raise UsageError(f"sysctl {name} is not allowed: it is not the container's own", hint=_HINT)
    return path if "." in path else path.replace("/", "."), value


def parse_sysctls(texts: Iterable[str], *, network: str) -> dict[str, str]:
    """Values by name, in the order given; of two of one name the later counts. Raises UsageError."""
    return dict(parse_sysctl(text, network=network) for text in texts)
