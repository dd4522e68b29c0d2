"""Who a process is: the grammar of ``USER`` and ``-u``, and look-up in an image's passwd and group texts.

The texts come from an image and are hostile: they are read line by line, a line that is not well formed is passed
over, and nothing of the host's own accounts is ever asked. The rules are those of docker (moby/sys/user, GetExecUser):
what is numeric is always an ID, never a name (CVE-2016-3697); an ID above 2^31 - 1 is an error, never a name
(CVE-2024-40635); an explicit group is the only group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from minidock.errors import UsageError

MAX_ID = 2**31 - 1
MAX_FILE = 4 * 1024 * 1024
"""Bytes of an image's passwd or group file that a caller should read at most; a longer file is refused."""

_PART = r"(?![-+])[^:\s\x00-\x1f\x7f]+"
_FORM = "use USER, UID, USER:GROUP or UID:GID, IDs from 0 to 2147483647"


class UserSpec(NamedTuple):
    """What was asked for: name or ID of the user and of the group, each empty where the text had none."""

    user: str
    group: str


class Identity(NamedTuple):
    """What a process becomes. ``groups`` holds the primary group first; ``name`` is empty for an ID without entry."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    name: str


class PasswdEntry(NamedTuple):
    """A line of passwd(5), without password and comment."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


class GroupEntry(NamedTuple):
    """A line of group(5), without password."""

    name: str
    gid: int
    members: tuple[str, ...]


def parse_user(text: str) -> UserSpec:
    """Parse ``user[:group]``; the empty text means the default, root.

    Raises UsageError for ``1:``, ``:1``, ``1:2:3``, a sign, white space, control characters and IDs above 2^31 - 1.
    """
    if not text:
        return UserSpec("", "")
    user, colon, group = text.partition(":")
    if not re.fullmatch(_PART, user) or (colon and not re.fullmatch(_PART, group)):
        raise UsageError(f"invalid user {text!r}", hint=_FORM)
    for part in (user, group):
        if _is_digits(part) and _number(part) is None:
            raise UsageError(f"invalid user {text!r}: {part[:24]} is not an ID", hint=_FORM)
    return UserSpec(user, group)


def parse_group(text: str) -> str:
    """A name or ID for ``--group-add``, unchanged. Raises UsageError as ``parse_user`` does."""
    if not re.fullmatch(_PART, text) or (_is_digits(text) and _number(text) is None):
        raise UsageError(f"invalid group {text!r}", hint="use a name or an ID from 0 to 2147483647")
    return text


def lookup(spec: UserSpec, passwd: str, group: str, extra_groups: Sequence[str] = ()) -> Identity:
    """Resolve ``spec`` in the texts of an image's passwd and group files (empty where it has none).

    Raises UsageError if a name has no entry. ``extra_groups`` are names or IDs that are added to the groups.
    """
    entry = _find_user(spec.user, passwd)
    uid = entry.uid if entry else _numeric_id(spec.user or "0", "user", "passwd")
    gid = entry.gid if entry else 0
    groups = _groups(group) if spec.group or entry or extra_groups else ()
    supplementary: tuple[int, ...] = ()
    if spec.group:
        gid = _group_id(spec.group, groups)
    elif entry:
        supplementary = tuple(g.gid for g in groups if entry.name in g.members)
    added = tuple(_group_id(name, groups) for name in extra_groups)
    everything = tuple(dict.fromkeys((gid, *supplementary, *added)))
    return Identity(uid, gid, everything, (entry.home if entry else "") or "/", entry.name if entry else "")


def passwd_entries(text: str) -> Iterator[PasswdEntry]:
    """The well-formed lines of a passwd(5) text, in order."""
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) < 4 or not fields[0] or fields[0].startswith("#"):
            continue
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None:
            continue
        home, shell = [*fields[5:7], "", ""][:2]
        yield PasswdEntry(fields[0], uid, gid, home, shell)


def group_entries(text: str) -> Iterator[GroupEntry]:
    """The well-formed lines of a group(5) text, in order."""
    for line in text.split("\n"):
        fields = line.split(":")
        gid = _number(fields[2]) if len(fields) >= 3 and fields[0] and not fields[0].startswith("#") else None
        if gid is None:
            continue
        members = tuple(name for name in fields[3].split(",") if name) if len(fields) > 3 else ()
        yield GroupEntry(fields[0], gid, members)


def _groups(text: str) -> tuple[GroupEntry, ...]:
    return tuple(group_entries(text))


def _find_user(user: str, passwd: str) -> PasswdEntry | None:
    uid = _number(user or "0")
    for entry in passwd_entries(passwd):
        if entry.uid == uid if uid is not None else entry.name == user:
            return entry
    return None


def _group_id(name: str, groups: Sequence[GroupEntry]) -> int:
    if _number(name) is None:
        for entry in groups:
            if entry.name == name:
                return entry.gid
    return _numeric_id(name, "group", "group")


def _numeric_id(text: str, kind: str, file: str) -> int:
    value = _number(text)
    if value is None:
        raise UsageError(f"unable to find {kind} {text}: no matching entries in {file} file")
    return value


def _number(text: str) -> int | None:
    if not _is_digits(text) or len(text) > 32:
        return None
    value = int(text)
    return value if value <= MAX_ID else None


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
