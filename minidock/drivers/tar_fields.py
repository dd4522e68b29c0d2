"""The parts of a tar header: numbers, texts and pax records, read strictly."""

from __future__ import annotations

import os
import re
import sys

from minidock.drivers.tar_format import ZERO_BLOCK, shorten
from minidock.errors import ArchiveError

_OCTAL = b"01234567"
_MAX_DIGITS = 20
# As os.fsdecode does it, which looks its encoding up anew for each name.
_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()
# The numbers as nearly every writer has them: mode, uid, gid, size and mtime, all digits and a NUL.
_PLAIN = re.compile(rb"([0-7]{7})\0([0-7]{7})\0([0-7]{7})\0([0-7]{11})\0([0-7]{11})\0")


def text(field: bytes) -> str:
    """A field up to its first NUL."""
    return field.partition(b"\0")[0].decode(_ENCODING, _ERRORS)


def plain_numbers(block: bytes) -> tuple[int, int, int, int, int] | None:
    """Mode, uid, gid, size and mtime of a header that has them all in the common form, None for any other."""
    plain = _PLAIN.match(block, 100)
    if plain is None:
        return None
    mode, uid, gid, size, mtime = plain.groups()
    return int(mode, 8), int(uid, 8), int(gid, 8), int(size, 8), int(mtime, 8)


def number(field: bytes, *, what: str) -> int:
    """An octal number padded with spaces and NULs (empty is 0), or GNU tar's base-256 one. Raises ArchiveError."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True) if field[0] == 0xFF else _base256(field)
    else:
        digits = field.strip(b" \0")
        if digits.translate(None, _OCTAL):
            raise ArchiveError(f"a tar header has an invalid {what}: {shorten(os.fsdecode(digits))}")
        value = int(digits, 8) if digits else 0
    return value


def _base256(field: bytes) -> int:
    return int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")


def verify_checksum(block: bytes) -> None:
    """Compare a header's checksum with its bytes, taken as unsigned or, as some old writers did, as signed ones.

    Raises ArchiveError.
    """
    stated = number(block[148:156], what="checksum")
    rest = block[:148] + b"        " + block[156:]
    total = sum(rest)
    if stated == total:
        return
    if stated != total - 256 * sum(byte > 127 for byte in rest):
        raise ArchiveError("a tar header has a wrong checksum: the stream is damaged or not a tar archive")


def is_zero(block: bytes) -> bool:
    return block == ZERO_BLOCK


def pax_records(body: bytes) -> list[tuple[str, bytes]]:
    """The records of a pax header, in order. Raises ArchiveError for anything that is not ``LENGTH KEY=VALUE\\n``."""
    records = []
    start = 0
    while start < len(body):
        space = body.find(b" ", start, start + _MAX_DIGITS)
        digits = body[start:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        end = start + length
        if length <= len(digits) + 2 or end > len(body) or body[end - 1 : end] != b"\n":
            raise ArchiveError("a pax header of the tar stream has a malformed record")
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise ArchiveError("a pax header of the tar stream has a record without a valid key")
        records.append((os.fsdecode(key), value))
        start = end
    return records


def pax_number(value: bytes, *, what: str) -> int:
    """A decimal number, not negative. Raises ArchiveError."""
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        raise ArchiveError(f"a pax header has an invalid {what}: {shorten(os.fsdecode(value))}")
    return int(value)


def pax_time(value: bytes) -> int:
    """Decimal seconds, perhaps negative and with a fraction, rounded down to whole ones. Raises ArchiveError."""
    negative = value[:1] == b"-"
    whole, point, fraction = value[negative:].partition(b".")
    if point and fraction.translate(None, b"0123456789"):
        raise ArchiveError(f"a pax header has an invalid mtime: {shorten(os.fsdecode(value))}")
    seconds = pax_number(whole, what="mtime")
    if not negative:
        return seconds
    return -seconds - 1 if fraction.strip(b"0") else -seconds
