"""Users and groups of a root file system, by name."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from minidock.errors import MinidockError
from minidock.kernel.resolve import open_in_root
from minidock.model.users import MAX_FILE, lookup, parse_user

if TYPE_CHECKING:
    from minidock.model.users import Identity


def identity_in(root_fd: int, user: str) -> Identity:
    """Who ``user[:group]`` is in the root ``root_fd``. Raises UsageError for bad grammar and for unknown names."""
    return lookup(parse_user(user), _text(root_fd, "etc/passwd"), _text(root_fd, "etc/group"))


def owner_in(root_fd: int, owner: str) -> tuple[int, int]:
    """What ``--chown=user[:group]`` means in ``root_fd``: without a group, its number is the user's (docker's manual).

    Raises UsageError for bad grammar and for unknown names.
    """
    numbers = numeric_owner(owner)
    if numbers is not None:
        return numbers
    identity = identity_in(root_fd, owner)
    return identity.uid, identity.gid if parse_user(owner).group else identity.uid


def numeric_owner(owner: str) -> tuple[int, int] | None:
    """What ``--chown=user[:group]`` means where no name has to be looked up, else None. Raises UsageError."""
    spec = parse_user(owner)
    group = spec.group or spec.user
    # Digits of other scripts are digits to Python, and part of a name to everybody else.
    if spec.user.isdecimal() and group.isdecimal() and (spec.user + group).isascii():
        return int(spec.user), int(group)
    return None


def _text(root_fd: int, path: str) -> str:
    """The text of an image's file, empty if it is missing; never more than the cap, never a FIFO's."""
    try:
        found = open_in_root(root_fd, path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE:
            raise MinidockError(f"the image's /{path} is not a regular file of at most {MAX_FILE >> 20} MiB")
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)
    with open(fd, "rb") as file:
        return file.read(MAX_FILE).decode("utf-8", "surrogateescape")
