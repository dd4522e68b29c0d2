"""What reader and writer of tar streams share: entry types, the entry as a value, limits, and names made safe.

Formats: POSIX.1-2017 pax(1) ("ustar Interchange Format", "pax Extended Header"), GNU tar's manual ("Basic Tar Format")
and OCI image-spec layer.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from minidock.drivers.xattrs import NO_XATTRS
from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

REGULAR = b"0"
LINK = b"1"
SYMLINK = b"2"
CHAR_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

XATTR_PREFIX = "SCHILY.xattr."

MAX_NAME = 4095
MAX_COMPONENT = 255
MAX_ID = 0xFFFF_FFFE


class Reader(Protocol):
    """All that is asked of a stream that is read; an empty answer is its end."""

    def read(self, size: int = -1, /) -> bytes: ...


class Entry(NamedTuple):
    """One entry of a tar stream.

    ``name`` is relative, without empty, ``.`` and ``..`` components, and empty for the root; names are decoded as file
    names are (``os.fsdecode``). ``linkname`` is a symbolic link's target verbatim, or a hard link's target made safe as
    ``name`` is. ``size`` is the file's length in bytes; ``mtime`` whole seconds. ``segments`` are a sparse file's
    (offset, length) runs of data, None for a file that is stored whole.
    """

    name: str
    type: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    linkname: str = ""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[str, bytes] = NO_XATTRS
    segments: tuple[tuple[int, int], ...] | None = None


class Limits(NamedTuple):
    """What a stream may hold: ``entries`` headers of any kind, ``total`` bytes of files, ``extension`` bytes of one
    extended header, ``segments`` runs of one sparse file, ``texts`` bytes of names, link targets and extended
    attributes in all, which are kept in memory until the layer is whole."""

    entries: int = 10_000_000
    total: int = 1 << 42
    extension: int = 1 << 20
    segments: int = 1 << 16
    texts: int = 1 << 28


def clean_name(raw: str, *, what: str = "name") -> str:
    """The name that an entry has below the root: leading slashes and ``.`` components are dropped.

    Raises ArchiveError for an empty name, a NUL, a ``..`` component, and what is too long for the kernel.
    """
    plain = raw[2:] if raw[:2] == "./" else raw
    if _is_clean(plain):
        return plain
    if not raw:
        raise ArchiveError(f"an entry of the tar stream has an empty {what}")
    if "\0" in raw:
        raise ArchiveError(f"the {what} {shorten(raw)} in the tar stream holds a NUL byte")
    parts = [part for part in raw.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ArchiveError(f"the {what} {shorten(raw)} in the tar stream would reach outside with '..'")
    if len(raw) > MAX_COMPONENT // 4 and not _fits(parts):
        raise ArchiveError(f"the {what} {shorten(raw)} in the tar stream is too long")
    return "/".join(parts)


def _is_clean(raw: str) -> bool:
    """Whether a short name is as it has to be already; nearly all are."""
    return (
        0 < len(raw) <= MAX_COMPONENT // 4
        and raw[0] not in "./"
        and raw[-1] != "/"
        and "//" not in raw
        and "/." not in raw
        and "\0" not in raw
    )


def shorten(text: str) -> str:
    """``text`` quoted for a message, without control characters and cut where it is long."""
    return repr(text if len(text) <= 100 else f"{text[:97]}...")


def _fits(parts: list[str]) -> bool:
    encoded = [part.encode("utf-8", "surrogateescape") for part in parts]
    if any(len(part) > MAX_COMPONENT for part in encoded):
        return False
    return sum(map(len, encoded)) + len(encoded) - 1 <= MAX_NAME
