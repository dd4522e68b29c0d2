"""The grammar of ``--device`` and ``--device-cgroup-rule``, which is docker's; no I/O."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from typing import Any, NamedTuple

from minidock.errors import UsageError

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
# The kernel's dev_t: 12 bits of major and 20 of minor number.
_MOST_MAJOR, _MOST_MINOR = 2**12 - 1, 2**20 - 1
_FORM = "the form is HOST[:CONTAINER[:rwm]], absolute paths and letters of rwm"
# What every /dev of a container has in these places: links, the terminal, mounts of its own.
_TAKEN = frozenset(f"/dev/{name}" for name in ("fd", "stdin", "stdout", "stderr", "ptmx", "core", "console"))
_MOUNTS = ("/dev/pts", "/dev/shm", "/dev/mqueue")


class DeviceRequest(NamedTuple):
    """A device of the host, or a directory of them, its place in the container, and the letters of what is allowed."""

    host: str
    container: str
    access: str


def device_node(path: str, status: os.stat_result) -> dict[str, Any] | None:
    """One of the spec's ``linux.devices`` at ``path``, as the host's node of that status; None if it is no device."""
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        return None
    return {
        "path": path,
        "type": "c" if stat.S_ISCHR(status.st_mode) else "b",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def parse_device(text: str) -> DeviceRequest:
    """Read ``HOST[:CONTAINER[:rwm]]`` or ``HOST:rwm``. Raises UsageError, naming the text.

    The place in the container is below /dev, and none that every container needs for itself.
    """
    host, *rest = text.split(":")
    access = "rwm"
    if rest and _is_access(rest[-1]):
        access = rest.pop()
    elif len(rest) == 2:
        raise UsageError(f"invalid device {text!r}: {rest[1]!r} is no access", hint=_FORM)
    if len(rest) > 1 or not host.startswith("/") or not text.isprintable():
        what = ": CDI devices are not there yet" if "=" in host and not host.startswith("/") else ""
        raise UsageError(f"invalid device {text!r}{what}", hint=_FORM)
    container = rest[0] if rest else host
    if not container.startswith("/"):
        raise UsageError(f"invalid device {text!r}: {container!r} is not an absolute path", hint=_FORM)
    host, container = (posixpath.normpath("/" + path.lstrip("/")) for path in (host, container))
    if not container.startswith("/dev/") and container != "/dev":
        raise UsageError(f"invalid device {text!r}: {container} is not below /dev", hint="name a path below /dev")
    if is_taken(container):
        raise UsageError(f"invalid device {text!r}: a container has a {container} of its own", hint="name another path")
    return DeviceRequest(host, container, access)


def is_taken(path: str) -> bool:
    """Whether a place below /dev is one that every container needs for itself."""
    return path in _TAKEN or any(path == mount or path.startswith(f"{mount}/") for mount in _MOUNTS)


def parse_device_rule(text: str) -> dict[str, Any]:
    """Read ``a|b|c MAJOR:MINOR rwm``, ``*`` for any number, as one of the spec's ``linux.resources.devices``.

    Raises UsageError, naming the text.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise UsageError(f"invalid device cgroup rule {text!r}", hint="the form is 'c 10:200 rwm', * for any number")
    kind, major, minor, access = match.groups()
    rule: dict[str, Any] = {"allow": True, "type": kind}
    for name, number, most in (("major", major, _MOST_MAJOR), ("minor", minor, _MOST_MINOR)):
        if number != "*":
            # As text first: a number of any length is refused without being read.
            if len(number.lstrip("0")) > 7 or int(number) > most:
                raise UsageError(f"invalid device cgroup rule {text!r}: no device has such a {name} number")
            rule[name] = int(number)
    return {**rule, "access": "".join(letter for letter in "rwm" if letter in access)}


def _is_access(text: str) -> bool:
    return 0 < len(text) == len(set(text)) and set(text) <= set("rwm")
