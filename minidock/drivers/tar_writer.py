"""A deterministic tar writer: the same entries give the same bytes, and the digest comes with them.

ustar headers, a pax header only where a value does not fit one; owner names, access times and fractions of seconds are
never written. tarfile of the standard library takes ten times as long for small files.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers.tar_format import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    XATTR_PREFIX,
    ZERO_BLOCK,
    Entry,
    shorten,
)
from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FLUSH = 1 << 18
_CHUNK = 1 << 17
_SMALL = 1 << 16
_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777

_MAGIC = b"ustar\x0000" + bytes(64)
_NO_DEVICE = b"0000000\x000000000\x00"
_NO_PREFIX = bytes(167)
# The checksum counts its own field as eight spaces.
_MAGIC_SUM = sum(_MAGIC) + 8 * ord(" ")


class TarWriter:
    """Writes entries to ``out`` and hashes what it writes. ``size`` and ``entries`` count what went in so far."""

    __slots__ = ("_hash", "_held", "_out", "_parts", "entries", "size")

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self._parts: list[bytes] = []
        self._held = 0
        self.size = 0
        self.entries = 0

    def add(self, entry: Entry) -> None:
        """Write an entry without content. Raises OSError from ``out``."""
        header = encode_header(entry)
        self.entries += 1
        self._put(header, len(header))

    def add_file(self, entry: Entry, fd: int) -> None:
        """Write a regular file whose ``entry.size`` bytes are read from ``fd``.

        Raises ArchiveError when the file turns out shorter or longer, OSError from ``fd`` and ``out``.
        """
        size = entry.size
        header = encode_header(entry)
        self.entries += 1
        if size > _SMALL:
            self._put(header, len(header))
            self._copy(entry, fd)
            return
        data = os.read(fd, size + 1)
        if len(data) != size:
            raise _changed(entry)
        pad = -size % BLOCK
        self._parts += (header, data)
        self._put(ZERO_BLOCK[:pad], len(header) + size + pad)

    def finish(self) -> str:
        """Write the end of the archive, flush everything to ``out`` and return the digest of the whole stream."""
        self._put(ZERO_BLOCK + ZERO_BLOCK, 2 * BLOCK)
        self._flush()
        self._out.flush()
        return f"sha256:{self._hash.hexdigest()}"

    def _put(self, data: bytes, length: int) -> None:
        """Hold ``data`` until there is enough to write; ``length`` counts what is new."""
        self._parts.append(data)
        self._held += length
        if self._held > _FLUSH:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        self._write(data)

    def _write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]

    def _copy(self, entry: Entry, fd: int) -> None:
        """The content in blocks, each hashed while it is in the processor's cache."""
        self._flush()
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        left = entry.size
        while left:
            got = os.readv(fd, [view[: min(left, _CHUNK)]])
            if not got:
                raise _changed(entry)
            self._write(view[:got])
            left -= got
        if os.read(fd, 1):
            raise _changed(entry)
        pad = -entry.size % BLOCK
        self._put(ZERO_BLOCK[:pad], pad)


def encode_header(entry: Entry) -> bytes:
    """The header blocks of an entry: one ustar block, before it a pax header when something does not fit."""
    name = os.fsencode(entry.name)
    if entry.type == DIRECTORY:
        name = name + b"/" if name else b"./"
    link = os.fsencode(entry.linkname)
    uid, gid, size, mtime = entry.uid, entry.gid, entry.size, entry.mtime
    records: list[tuple[bytes, bytes]] = []
    prefix = b""
    if len(name) > 100:
        prefix, short = _split(name)
        if prefix:
            name = short
        else:
            records.append((b"path", name))
            name = name[:100]
    if len(link) > 100:
        records.append((b"linkpath", link))
        link = link[:100]
    if size > _MAX_OCTAL_11:
        records.append((b"size", b"%d" % size))
        size = 0
    if uid > _MAX_OCTAL_7:
        records.append((b"uid", b"%d" % uid))
        uid = 0
    if gid > _MAX_OCTAL_7:
        records.append((b"gid", b"%d" % gid))
        gid = 0
    if not 0 <= mtime <= _MAX_OCTAL_11:
        records.append((b"mtime", b"%d" % mtime))
        mtime = 0
    if entry.xattrs:
        records.extend(_xattr_records(entry.xattrs))
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (entry.mode & 0o7777, uid, gid, size, mtime)
    device = _NO_DEVICE
    if entry.type in {CHAR_DEVICE, BLOCK_DEVICE}:
        device = b"%07o\0%07o\0" % (entry.major, entry.minor)
    block = _block(name, numbers + entry.type, link, device, prefix)
    return _pax(records, entry.name) + block if records else block


def _block(name: bytes, numbers: bytes, link: bytes = b"", device: bytes = _NO_DEVICE, prefix: bytes = b"") -> bytes:
    """One header block; ``numbers`` are the fields from the mode to the mtime and the type."""
    checksum = sum(name) + sum(numbers) + sum(link) + sum(device) + sum(prefix) + _MAGIC_SUM
    return b"".join(
        (
            name.ljust(100, b"\0"),
            numbers[:-1],
            b"%06o\0 " % checksum,
            numbers[-1:],
            link.ljust(100, b"\0"),
            _MAGIC,
            device,
            prefix.ljust(167, b"\0") if prefix else _NO_PREFIX,
        )
    )


def _split(name: bytes) -> tuple[bytes, bytes]:
    """A long name as ustar's prefix (at most 155 bytes) and name (1 to 100), or an empty prefix if it cannot be so."""
    cut = name.find(b"/", max(len(name) - 101, 1))
    if cut <= 0 or cut > 155 or cut == len(name) - 1:
        return b"", b""
    return name[:cut], name[cut + 1 :]


def _xattr_records(xattrs: Mapping[str, bytes]) -> list[tuple[bytes, bytes]]:
    return [(os.fsencode(XATTR_PREFIX + name), xattrs[name]) for name in sorted(xattrs)]


def _pax(records: list[tuple[bytes, bytes]], name: str) -> bytes:
    body = b"".join(_record(key, value) for key, value in records)
    base = os.fsencode(name.rstrip("/").rpartition("/")[2])[:80]
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0x" % (0o644, 0, 0, len(body), 0)
    header = _block(b"PaxHeaders/" + base, numbers)
    return b"".join((header, body, ZERO_BLOCK[: -len(body) % BLOCK]))


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE\\n``, where LENGTH counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def _changed(entry: Entry) -> ArchiveError:
    return ArchiveError(f"the file {shorten(entry.name)} changed while it was packed")
