"""A strict streaming tar reader: ustar, pax, GNU and version 7 archives, one pass, bounded memory.

Everything an extended header overrides is checked after the override; of records that repeat, the last one counts.
Whatever is malformed, truncated or beyond the limits raises ArchiveError. tarfile of the standard library is not used:
it guesses where this refuses (CVE-2024-6232, CVE-2025-8194), and does not stream at this speed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.drivers import tar_fields as fields
from minidock.drivers.tar_format import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    FIFO,
    LINK,
    MAX_ID,
    MAX_NAME,
    REGULAR,
    SYMLINK,
    XATTR_PREFIX,
    ZERO_BLOCK,
    Entry,
    Limits,
    clean_name,
    shorten,
)
from minidock.drivers.tar_sparse import SPARSE_PREFIX, SparseKeys, SparseMap, old_map
from minidock.drivers.xattrs import NO_XATTRS
from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from minidock.drivers.tar_format import Reader

_CHUNK = 1 << 17
_OLD_REGULAR = b"\0"
_CONTIGUOUS = b"7"
_OLD_SPARSE = b"S"
_LONG_NAME = b"L"
_LONG_LINK = b"K"
_PAX = b"x"
_PAX_GLOBAL = b"g"
_WITH_DATA = frozenset({REGULAR, _OLD_REGULAR, _CONTIGUOUS, _OLD_SPARSE})
_WITHOUT_DATA = frozenset({LINK, SYMLINK, CHAR_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO})
_MEANT = frozenset({"path", "linkpath", "size", "uid", "gid", "mtime"})
# Each entry is given the global records anew.
_MAX_GLOBAL = 100
_MAX_TIME = (1 << 34) - 1
_MIN_TIME = -(1 << 31)


class TarReader:
    """Iterates over the entries of ``stream``; between two steps ``data`` gives the current one's content.

    The stream is read to its end, whatever follows the archive. ``ended`` becomes true when the end-of-archive mark was
    seen; a stream that merely stops between two entries is read too, as GNU tar does, and leaves it false. ``offset``
    is where in the stream the next byte to be read lies: right after a step, the current entry's content.
    """

    __slots__ = ("_count", "_global", "_left", "_limits", "_pad", "_stream", "_texts", "_total", "ended", "offset")

    def __init__(self, stream: Reader, *, limits: Limits | None = None) -> None:
        self._stream = stream
        self._limits = limits or Limits()
        self._global: list[tuple[str, bytes]] = []
        self._count = 0
        self._texts = 0
        self._total = 0
        self._left = 0
        self._pad = 0
        self.ended = False
        self.offset = 0

    def __iter__(self) -> Iterator[Entry]:
        """Raises ArchiveError, OSError from the stream."""
        while (entry := self._next()) is not None:
            yield entry

    def data(self) -> Iterator[bytes]:
        """The current entry's content in blocks; of a sparse file its runs of data, one after the other."""
        while self._left:
            block = self._stream.read(min(self._left, _CHUNK))
            if not block:
                raise _truncated()
            self._left -= len(block)
            self.offset += len(block)
            yield block

    def copy_to(self, fd: int, entry: Entry) -> None:
        """Write the current entry's content to the empty file ``fd``, holes left where a sparse file has them.

        Raises ArchiveError, OSError.
        """
        if entry.segments is None:
            for block in self.data():
                _write(fd, block)
            return
        os.ftruncate(fd, entry.size)
        for offset, length in entry.segments:
            os.lseek(fd, offset, os.SEEK_SET)
            left = length
            while left:
                block = self._exactly(min(left, _CHUNK))
                self._left -= len(block)
                left -= len(block)
                _write(fd, block)

    def _next(self) -> Entry | None:
        self._skip()
        pax: list[tuple[str, bytes]] = []
        long_name = long_link = None
        while True:
            block = self._header(pending=bool(pax) or long_name is not None or long_link is not None)
            if block is None:
                return None
            kind = block[156:157]
            if kind == _PAX:
                pax = fields.pax_records(self._extension(block))
            elif kind == _PAX_GLOBAL:
                self._global = _merged(self._global, _meant(fields.pax_records(self._extension(block))))
            elif kind == _LONG_NAME:
                long_name = fields.text(self._extension(block))
            elif kind == _LONG_LINK:
                long_link = fields.text(self._extension(block))
            else:
                return self._entry(block, kind, pax, long_name, long_link)

    def _header(self, *, pending: bool) -> bytes | None:
        block = self._stream.read(BLOCK)
        while 0 < len(block) < BLOCK:
            more = self._stream.read(BLOCK - len(block))
            if not more:
                raise _truncated()
            block += more
        self.ended = block == ZERO_BLOCK
        if not block or self.ended:
            while self.ended and self._stream.read(_CHUNK):
                continue
            if pending:
                raise ArchiveError("the tar stream ends after an extended header")
            return None
        self._count += 1
        self.offset += BLOCK
        if self._count > self._limits.entries:
            raise ArchiveError(f"the tar stream has more than {self._limits.entries} entries")
        fields.verify_checksum(block)
        return block

    def _extension(self, block: bytes) -> bytes:
        size = fields.number(block[124:136], what="size")
        if not 0 <= size <= self._limits.extension:
            raise ArchiveError(f"an extended header of the tar stream claims {size} bytes")
        return self._exactly(size + -size % BLOCK)[:size]

    def _entry(
        self,
        block: bytes,
        kind: bytes,
        pax: list[tuple[str, bytes]],
        long_name: str | None,
        long_link: str | None,
    ) -> Entry:
        records = _merged(self._global, pax) if self._global else pax
        over = _Overrides(records) if records else _NOTHING_OVERRIDDEN
        raw_name = _first(over.name, long_name) or _ustar_name(block)
        raw_link = _first(over.link, long_link) or fields.text(block[157:257])
        mode, uid, gid, size, mtime = _numbers(block, over)
        if kind == _OLD_REGULAR and raw_name.endswith("/"):
            kind = DIRECTORY
        if kind not in _WITH_DATA and kind not in _WITHOUT_DATA:
            raise ArchiveError(f"the tar stream has an entry of the unknown type {shorten(os.fsdecode(kind))}")
        self._open(size if kind in _WITH_DATA else 0)
        self._count_texts(len(raw_name) + len(raw_link), over.xattrs)
        sparse = self._sparse(block, kind, over)
        name = clean_name(raw_name)
        kind = REGULAR if kind in _WITH_DATA else kind
        if not name and kind != DIRECTORY:
            raise ArchiveError(f"the tar stream's entry {shorten(raw_name)} makes the root something else")
        return Entry(
            name=name,
            type=kind,
            mode=mode & 0o7777,
            uid=_owner(uid, "uid"),
            gid=_owner(gid, "gid"),
            size=sparse.size if sparse else self._left,
            mtime=_time(mtime),
            linkname=_link(kind, raw_link, name),
            major=_device(block[329:337]) if kind in {CHAR_DEVICE, BLOCK_DEVICE} else 0,
            minor=_device(block[337:345]) if kind in {CHAR_DEVICE, BLOCK_DEVICE} else 0,
            xattrs=over.xattrs,
            segments=sparse.segments if sparse else None,
        )

    def _open(self, size: int) -> None:
        if size < 0:
            raise ArchiveError(f"the tar stream has an entry of the negative size {size}")
        self._total += size
        if self._total > self._limits.total:
            raise ArchiveError(f"the tar stream holds more than {self._limits.total} bytes of files")
        self._left = size
        self._pad = -size % BLOCK

    def _count_texts(self, length: int, xattrs: Mapping[str, bytes]) -> None:
        if xattrs:
            length += sum(len(name) + len(value) for name, value in xattrs.items())
        self._texts += length
        if self._texts > self._limits.texts:
            raise ArchiveError(f"the tar stream holds more than {self._limits.texts} bytes of names and attributes")

    def _sparse(self, block: bytes, kind: bytes, over: _Overrides) -> SparseMap | None:
        """The map of a sparse file; what is ``_left`` afterwards is the data of its runs."""
        if kind == _OLD_SPARSE:
            found = old_map(block, lambda: self._exactly(BLOCK), limit=self._limits.segments)
        elif over.sparse.present and kind in _WITH_DATA:
            found = over.sparse.resolve(self._map_block, limit=self._limits.segments)
        else:
            return None
        if sum(length for _, length in found.segments) != self._left:
            raise ArchiveError("the tar stream holds a sparse file whose map does not match its data")
        if found.size > self._limits.total:
            raise ArchiveError(f"the tar stream holds a sparse file of {found.size} bytes")
        return found

    def _map_block(self) -> bytes:
        if self._left < BLOCK:
            raise ArchiveError("the tar stream holds a sparse file with a malformed map")
        self._left -= BLOCK
        return self._exactly(BLOCK)

    def _skip(self) -> None:
        for _ in self.data():
            continue
        if self._pad:
            self._exactly(self._pad)
            self._pad = 0

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                raise _truncated()
            data += more
        self.offset += size
        return data


class _Overrides:
    """What pax records say about the entry that follows them."""

    __slots__ = ("gid", "link", "mtime", "name", "size", "sparse", "uid", "xattrs")

    def __init__(self, records: list[tuple[str, bytes]]) -> None:
        self.name: str | None = None
        self.link: str | None = None
        self.size: int | None = None
        self.uid: int | None = None
        self.gid: int | None = None
        self.mtime: int | None = None
        self.sparse = SparseKeys()
        self.xattrs: Mapping[str, bytes] = NO_XATTRS
        xattrs: dict[str, bytes] = {}
        for key, value in records:
            if key.startswith(XATTR_PREFIX):
                xattrs[_xattr_name(key)] = value
            elif not self.sparse.take(key, value):
                self._take(key, value)
        if xattrs:
            self.xattrs = xattrs
        if self.sparse.name is not None:
            self.name = os.fsdecode(self.sparse.name)

    def _take(self, key: str, value: bytes) -> None:
        # An empty value cancels an earlier record (POSIX pax, "Extended Header Keyword Precedence").
        if key == "path":
            self.name = os.fsdecode(value) if value else None
        elif key == "linkpath":
            self.link = os.fsdecode(value) if value else None
        elif key == "size":
            self.size = fields.pax_number(value, what=key) if value else None
        elif key == "uid":
            self.uid = fields.pax_number(value, what=key) if value else None
        elif key == "gid":
            self.gid = fields.pax_number(value, what=key) if value else None
        elif key == "mtime":
            self.mtime = fields.pax_time(value) if value else None


_NOTHING_OVERRIDDEN = _Overrides([])


def _meant(records: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Those of a global header's records that say something of an entry: comments are not kept."""
    return [record for record in records if record[0] in _MEANT or record[0].startswith((XATTR_PREFIX, SPARSE_PREFIX))]


def _merged(older: list[tuple[str, bytes]], newer: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Global records with the newer ones in their place, so that any number of global headers stays bounded."""
    keys = {key for key, _ in newer}
    merged = [record for record in older if record[0] not in keys] + newer
    if len(merged) > _MAX_GLOBAL:
        raise ArchiveError("the tar stream has too many global pax records")
    return merged


def _first(pax: str | None, gnu: str | None) -> str | None:
    return pax if pax is not None else gnu


def _ustar_name(block: bytes) -> str:
    name = fields.text(block[:100])
    if block[257:263] == b"ustar\0":
        end = 476 if block[508:512] == b"tar\0" else 500
        prefix = fields.text(block[345:end])
        return f"{prefix}/{name}" if prefix else name
    return name


def _link(kind: bytes, raw: str, name: str) -> str:
    if kind == LINK:
        target = clean_name(raw, what="hard-link target")
        if not target:
            raise ArchiveError(f"the tar stream's hard link {shorten(name)} points to the root")
        return target
    if kind != SYMLINK:
        return ""
    if not raw or "\0" in raw or len(os.fsencode(raw)) > MAX_NAME:
        raise ArchiveError(f"the tar stream's symbolic link {shorten(name)} has the invalid target {shorten(raw)}")
    return raw


def _numbers(block: bytes, over: _Overrides) -> tuple[int, int, int, int, int]:
    """Mode, uid, gid, size and mtime. What is overridden may be nonsense in the header."""
    plain = fields.plain_numbers(block) if over is _NOTHING_OVERRIDDEN else None
    if plain is not None:
        return plain
    return (
        fields.number(block[100:108], what="mode"),
        fields.number(block[108:116], what="uid") if over.uid is None else over.uid,
        fields.number(block[116:124], what="gid") if over.gid is None else over.gid,
        fields.number(block[124:136], what="size") if over.size is None else over.size,
        fields.number(block[136:148], what="mtime") if over.mtime is None else over.mtime,
    )


def _owner(value: int, what: str) -> int:
    if not 0 <= value <= MAX_ID:
        raise ArchiveError(f"the tar stream has an entry of the impossible {what} {value}")
    return value


def _device(field: bytes) -> int:
    value = fields.number(field, what="device number")
    if not 0 <= value < 1 << 20:
        raise ArchiveError(f"the tar stream has an entry of the impossible device number {value}")
    return value


def _time(value: int) -> int:
    if not _MIN_TIME <= value <= _MAX_TIME:
        raise ArchiveError(f"the tar stream has an entry of the impossible mtime {value}")
    return value


def _xattr_name(key: str) -> str:
    name = key[len(XATTR_PREFIX) :]
    if not name or len(name) > 255:
        raise ArchiveError(f"a pax header names the invalid extended attribute {shorten(name)}")
    return name


def _truncated() -> ArchiveError:
    return ArchiveError("the tar stream is truncated")


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
