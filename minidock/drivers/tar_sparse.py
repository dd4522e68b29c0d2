"""Sparse files as GNU tar writes them: the old header form and the pax forms 0.0, 0.1 and 1.0.

Source: GNU tar's manual, "Storing Sparse Files".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minidock.drivers.tar_fields import number, pax_number
from minidock.drivers.tar_format import BLOCK, shorten
from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable

SPARSE_PREFIX = "GNU.sparse."
_MAX_SIZE = (1 << 63) - 1


class SparseMap(NamedTuple):
    """Where a sparse file's data lies: (offset, length) runs in order, its full ``size``, and how many bytes of the
    entry's data area the map itself took."""

    segments: tuple[tuple[int, int], ...]
    size: int
    consumed: int


class SparseKeys:
    """The ``GNU.sparse.*`` records of one pax header."""

    __slots__ = ("major", "minor", "name", "numbers", "offsets", "size", "text")

    def __init__(self) -> None:
        self.major = self.minor = 0
        self.name: bytes | None = None
        self.size: bytes | None = None
        self.text: bytes | None = None
        self.offsets: list[bytes] = []
        self.numbers: list[bytes] = []

    def take(self, key: str, value: bytes) -> bool:
        """Keep a record if it is one of these; False if it is another's."""
        if not key.startswith(SPARSE_PREFIX):
            return False
        kind = key[len(SPARSE_PREFIX) :]
        if kind in {"major", "minor"}:
            setattr(self, kind, pax_number(value, what=key))
        elif kind == "name":
            self.name = value
        elif kind in {"size", "realsize"}:
            self.size = value
        elif kind == "map":
            self.text = value
        elif kind == "offset":
            self.offsets.append(value)
        elif kind == "numbytes":
            self.numbers.append(value)
        return True

    @property
    def present(self) -> bool:
        return self.size is not None

    def resolve(self, read_block: Callable[[], bytes], *, limit: int) -> SparseMap:
        """The map; ``read_block`` gives the entry's data area block by block. Raises ArchiveError."""
        size = pax_number(self.size or b"", what="size of a sparse file")
        consumed = 0
        if (self.major, self.minor) == (1, 0):
            pairs, consumed = _read_map(read_block, limit=limit)
        elif self.major:
            raise ArchiveError(f"the tar stream holds a sparse file of the unknown form {self.major}.{self.minor}")
        elif self.text is not None:
            pairs = _pairs(self.text.split(b",") if self.text else [], limit=limit)
        else:
            if len(self.offsets) != len(self.numbers):
                raise _malformed()
            pairs = _pairs([x for both in zip(self.offsets, self.numbers, strict=True) for x in both], limit=limit)
        return SparseMap(check(pairs, size), size, consumed)


def old_map(header: bytes, read_block: Callable[[], bytes], *, limit: int) -> SparseMap:
    """The map in an old GNU sparse header and in the extension blocks after it. Raises ArchiveError."""
    size = number(header[483:495], what="size of a sparse file")
    pairs = _structs(header[386:482])
    extended = header[482]
    while extended:
        block = read_block()
        pairs += _structs(block[:504])
        extended = block[504]
        if len(pairs) > limit:
            raise _too_many(limit)
    return SparseMap(check(pairs, size), size, 0)


def check(pairs: list[tuple[int, int]], size: int) -> tuple[tuple[int, int], ...]:
    """The runs that hold data, if they lie in order, apart and inside ``size``. Raises ArchiveError."""
    if not 0 <= size <= _MAX_SIZE:
        raise ArchiveError(f"the tar stream holds a sparse file of the impossible size {size}")
    end = 0
    for offset, length in pairs:
        if offset < end or length < 0 or offset + length > size:
            raise _malformed()
        end = offset + length
    return tuple(pair for pair in pairs if pair[1])


def _structs(area: bytes) -> list[tuple[int, int]]:
    pairs = []
    for start in range(0, len(area) - 23, 24):
        offset, length = area[start : start + 12], area[start + 12 : start + 24]
        if not any(offset) and not any(length):
            break
        pairs.append((number(offset, what="sparse offset"), number(length, what="sparse length")))
    return pairs


def _read_map(read_block: Callable[[], bytes], *, limit: int) -> tuple[list[tuple[int, int]], int]:
    """Form 1.0: decimal lines, first their count, padded to a whole block, at the head of the data area."""
    data = b""
    blocks = 0
    numbers: list[bytes] = []
    wanted = 1
    while len(numbers) < wanted:
        data += read_block()
        blocks += 1
        lines = data.split(b"\n")
        data = lines.pop()
        if len(data) > BLOCK:
            raise _malformed()
        numbers += lines
        if numbers and wanted == 1:
            count = pax_number(numbers[0], what="count of sparse runs")
            if count > limit:
                raise _too_many(limit)
            wanted = 1 + 2 * count
    return _pairs(numbers[1:wanted], limit=limit), blocks * BLOCK


def _pairs(values: list[bytes], *, limit: int) -> list[tuple[int, int]]:
    if len(values) % 2:
        raise _malformed()
    if len(values) > 2 * limit:
        raise _too_many(limit)
    numbers = [pax_number(value, what="sparse map") for value in values]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _malformed() -> ArchiveError:
    return ArchiveError("the tar stream holds a sparse file with a malformed map")


def _too_many(limit: int) -> ArchiveError:
    return ArchiveError(f"the tar stream holds a sparse file of more than {shorten(str(limit))} runs")
