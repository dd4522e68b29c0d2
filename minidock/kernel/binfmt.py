"""binfmt_misc: which program runs the programs of another machine (Documentation/admin-guide/binfmt-misc.rst of Linux).

A handler with the flag F has its interpreter opened when it is registered, so that it serves every root file system;
one without it is looked for in the container's.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from minidock.kernel import mount

FILE_SYSTEM = "binfmt_misc"
_PLACE = "/proc/sys/fs/binfmt_misc"
_ALL_IDS = ["0", "0", "4294967295"]
_MOST = 4096


class Handler(NamedTuple):
    """One registered handler. ``flags`` are letters of POCF; programs have ``magic`` at ``offset``, where ``mask`` (as
    long, or empty for all ones) has ones. A handler of a file name's extension has no ``magic``."""

    name: str
    enabled: bool
    interpreter: str
    flags: str
    offset: int = 0
    magic: bytes = b""
    mask: bytes = b""

    def matches(self, head: bytes) -> bool:
        """Whether a file that begins with ``head`` is this handler's."""
        found = head[self.offset : self.offset + len(self.magic)]
        mask = self.mask or b"\xff" * len(self.magic)
        return (
            bool(self.magic)
            and len(found) == len(self.magic)
            and all((one ^ other) & bits == 0 for one, other, bits in zip(found, self.magic, mask, strict=True))
        )


def handlers(place: str = _PLACE) -> list[Handler] | None:
    """What is registered, none while all of it is switched off; None where that cannot be seen.

    ``place`` is where it is mounted; where it is not, it is mounted for this look alone, nowhere. Raises OSError,
    ENODEV where the kernel has no binfmt_misc.
    """
    if os.path.exists(f"{place}/status"):
        return _read_all(place)
    if not _in_first_user_namespace():
        # To mount it would begin a set of the namespace's own (Linux 6.7), in which there is nothing.
        return None
    fd = mount.new_mount(FILE_SYSTEM, source=FILE_SYSTEM)
    try:
        return _read_all(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def parse_handler(name: str, text: str) -> Handler | None:
    """A handler from its file's text; None for what is none."""
    lines = text.splitlines()
    fields = dict(line.partition(" ")[::2] for line in lines[1:])
    try:
        return Handler(
            name,
            enabled=lines[0] == "enabled",
            interpreter=fields["interpreter"],
            flags=fields.get("flags:", ""),
            offset=int(fields.get("offset", "0")),
            magic=bytes.fromhex(fields.get("magic", "")),
            mask=bytes.fromhex(fields.get("mask", "")),
        )
    except (IndexError, KeyError, ValueError):
        return None


def _read_all(place: str) -> list[Handler]:
    if _read(f"{place}/status").strip() != "enabled":
        return []
    names = sorted(set(os.listdir(place)) - {"register", "status"})
    found = (parse_handler(name, _read(f"{place}/{name}")) for name in names)
    return [handler for handler in found if handler is not None]


def _read(path: str) -> str:
    """What a file says; nothing where it has just been removed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return ""
        raise
    try:
        return os.read(fd, _MOST).decode("utf-8", "replace")
    finally:
        os.close(fd)


def _in_first_user_namespace() -> bool:
    return _read("/proc/self/uid_map").split() == _ALL_IDS
