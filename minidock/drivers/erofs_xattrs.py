"""Extended attributes as EROFS keeps them behind an inode.

Source: "Extended attributes" in Documentation/filesystems/erofs.rst and fs/erofs/xattr.h of Linux.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.drivers.erofs_format import (
    MAX_NAME,
    MAX_XATTR_COUNT,
    MAX_XATTR_VALUE,
    XATTR_ENTRY,
    XATTR_ENTRY_SIZE,
    XATTR_HEADER_SIZE,
    XATTR_PREFIXES,
    XATTR_WHOLE,
)
from minidock.drivers.nodes import InexpressibleError
from minidock.drivers.tar_format import shorten
from minidock.drivers.whiteouts import OPAQUE_XATTR
from minidock.drivers.xattrs import belongs

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNIT = 4
_WHOLE_NAMES = {index: name for name, index in XATTR_WHOLE.items()}
_PREFIXES = {index: prefix for prefix, index in XATTR_PREFIXES.items()}


def count_of(area: bytes) -> int:
    """The i_xattr_icount of an inode whose attributes are ``area``, as ``encode`` gives it."""
    return 1 + (len(area) - XATTR_HEADER_SIZE) // _UNIT if area else 0


def size_of(count: int) -> int:
    """How many bytes follow an inode of the i_xattr_icount ``count``."""
    return XATTR_HEADER_SIZE + _UNIT * (count - 1) if count else 0


def encode(xattrs: Mapping[str, bytes], *, opaque: bool = False) -> bytes:
    """What follows the inode: header and attributes, sorted by name; of an ``opaque`` directory with overlayfs's mark.

    Raises InexpressibleError for names and values that the format or a layer cannot hold.
    """
    for name in xattrs:
        if not belongs(name):
            raise InexpressibleError(f"it holds the extended attribute {shorten(name)}, which is not a layer's")
    held = {**xattrs, OPAQUE_XATTR: b"y"} if opaque else xattrs
    parts = [bytes(XATTR_HEADER_SIZE)]
    for name in sorted(held):
        value = held[name]
        index, suffix = _split(name)
        if len(suffix) > MAX_NAME or b"\0" in suffix or len(value) > MAX_XATTR_VALUE:
            raise InexpressibleError(f"it holds the oversized extended attribute {shorten(name)}")
        used = XATTR_ENTRY_SIZE + len(suffix) + len(value)
        parts += (XATTR_ENTRY.pack(len(suffix), index, len(value)), suffix, value, bytes(-used % _UNIT))
    area = b"".join(parts)
    if count_of(area) > MAX_XATTR_COUNT:
        raise InexpressibleError("it holds an inode with too many extended attributes")
    return area


def decode(area: bytes, size: int) -> tuple[Mapping[str, bytes], bool]:
    """The attributes in an area of ``size`` bytes, and whether overlayfs's mark of an opaque directory is among them.

    Accepts what ``encode`` makes and nothing else: ValueError.
    """
    found: dict[str, bytes] = {}
    position = XATTR_HEADER_SIZE
    if not position < len(area) == size or area[:position] != bytes(XATTR_HEADER_SIZE):
        raise ValueError("malformed extended attributes")
    while position < len(area):
        name_size, index, value_size = XATTR_ENTRY.unpack_from(area, position)
        start = position + XATTR_ENTRY_SIZE
        middle = start + name_size
        end = middle + value_size
        name = _join(index, area[start:middle])
        position = end + -end % _UNIT
        if position > len(area) or name in found or area[end:position].strip(b"\0"):
            raise ValueError("malformed extended attributes")
        found[name] = area[middle:end]
    opaque = found.pop(OPAQUE_XATTR, None)
    if opaque not in {None, b"y"} or not all(map(belongs, found)):
        raise ValueError("extended attributes that are not a layer's")
    if encode(found, opaque=opaque is not None) != area:
        raise ValueError("unsorted extended attributes")
    return found, opaque is not None


def _split(name: str) -> tuple[int, bytes]:
    """The index of a name's space and what is left of the name."""
    whole = XATTR_WHOLE.get(name)
    if whole is not None:
        return whole, b""
    space, dot, suffix = name.partition(".")
    index = XATTR_PREFIXES.get(space + dot)
    if index is None or not suffix:
        raise InexpressibleError(f"it holds the extended attribute {shorten(name)} of an unknown kind")
    return index, os.fsencode(suffix)


def _join(index: int, suffix: bytes) -> str:
    """The name of an attribute; ValueError when it is none."""
    whole = _WHOLE_NAMES.get(index)
    if whole is not None and not suffix:
        return whole
    prefix = _PREFIXES.get(index)
    if prefix is None or not suffix or b"\0" in suffix:
        raise ValueError("an extended attribute of an unknown kind")
    return prefix + os.fsdecode(suffix)
