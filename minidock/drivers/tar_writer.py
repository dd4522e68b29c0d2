"""A deterministic tar writer: the same entries give the same bytes, and the digest comes with them.

ustar headers, a pax header only where a value does not fit one; owner names, access times and fractions of seconds are
never written. tarfile of the standard library takes ten times as long for small files.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers.tar_format import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    REGULAR,
    XATTR_PREFIX,
    ZERO_BLOCK,
    Entry,
    shorten,
)
from minidock.errors import ArchiveError
from minidock.kernel.files import start_writeback
from minidock.kernel.hashing import Hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Most layers are small. Of one that is not, the pieces are whole and large, which the page cache takes twice as fast;
# but it allocates the pages of one write in one piece, and of such there are few that were in use a moment ago.
_SMALL_BUFFER = 1 << 16
_BUFFER = 1 << 21
_WRITE = 1 << 19
_WRITEBACK = 8 << 20
# As os.fsencode does it, which looks its encoding up anew for each name.
_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()
_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777

# From the mode to the mtime.
_NUMBERS = b"%07o\0%07o\0%07o\0%011o\0%011o\0"
_MAGIC = b"ustar\x0000" + bytes(64)
_NO_DEVICE = b"0000000\x000000000\x00"
# What follows the type of an entry without a link's target, a device and a prefix.
_USUAL_TAIL = bytes(100) + _MAGIC + _NO_DEVICE + bytes(167)
_NO_DEVICE_SUM = sum(_NO_DEVICE)
# The checksum counts its own field as eight spaces.
_USUAL_SUM = sum(_USUAL_TAIL) + 8 * ord(" ")


class TarWriter:
    """Writes entries to ``out`` and hashes what it writes. ``entries`` counts what went in so far, ``size`` what was
    written of it.

    ``fd`` is the empty file that ``out`` writes to, if it is one that will be synced: what is large is then written out
    along the way. What is written and hashed passes through two buffers in turn: while one is hashed, the next is
    filled. ``on_written`` is told the size so far each time that a buffer was written.
    """

    __slots__ = ("_buffer", "_fd", "_hasher", "_held", "_other", "_out", "_started", "entries", "on_written", "size")

    def __init__(self, out: BinaryIO, *, fd: int = -1) -> None:
        self._out = out
        self._fd = fd
        self._started = 0
        self._hasher = Hasher()
        self._buffer = memoryview(bytearray(_SMALL_BUFFER))
        self._other: memoryview | None = None
        self._held = 0
        self.size = 0
        self.entries = 0
        self.on_written: Callable[[int], None] | None = None

    def add(self, entry: Entry) -> None:
        """Write an entry without content. Raises OSError from ``out``."""
        self.entries += 1
        self._put(encode_header(entry))

    def add_file(self, entry: Entry, fd: int) -> int:
        """Write a regular file whose ``entry.size`` bytes are read from ``fd``; returns the offset of its content.

        Raises ArchiveError when the file turns out shorter or longer, OSError from ``fd`` and ``out``.
        """
        size = entry.size
        self.add(entry)
        offset = self.size + self._held
        left = size
        while left:
            if self._held == len(self._buffer):
                self._make_room()
            got = os.readv(fd, [self._buffer[self._held : self._held + left]])
            if not got:
                raise _changed(entry)
            self._held += got
            left -= got
        if os.read(fd, 1):
            raise _changed(entry)
        self._put(ZERO_BLOCK[: -size % BLOCK])
        return offset

    def add_bytes(self, entry: Entry, data: bytes | memoryview) -> int:
        """Write a regular file whose ``entry.size`` bytes are ``data``; returns the offset of its content."""
        header = encode_header(entry)
        size, held = len(data), self._held
        start = held + len(header)
        end = start + size
        padded = end + -size % BLOCK
        if padded > len(self._buffer):
            self._put(header)
            offset = self.size + self._held
            self._put(data)
            self._put(ZERO_BLOCK[: -size % BLOCK])
        else:
            buffer = self._buffer
            buffer[held:start] = header
            buffer[start:end] = data
            if padded > end:
                buffer[end:padded] = ZERO_BLOCK[: padded - end]
            self._held = padded
            offset = self.size + start
        self.entries += 1
        return offset

    def finish(self) -> str:
        """Write the end of the archive, flush everything to ``out`` and return the digest of the whole stream."""
        self._put(ZERO_BLOCK + ZERO_BLOCK)
        self._flush()
        self._out.flush()
        return f"sha256:{self._hasher.hexdigest()}"

    def _put(self, data: bytes | memoryview) -> None:
        while data:
            if self._held == len(self._buffer):
                self._make_room()
            end = min(self._held + len(data), len(self._buffer))
            count = end - self._held
            self._buffer[self._held : end] = data[:count]
            self._held = end
            data = data[count:]

    def _make_room(self) -> None:
        """Go on with the other buffer, whose own hashing has ended: the hasher does one piece at a time."""
        if len(self._buffer) < _BUFFER:
            larger = memoryview(bytearray(_BUFFER))
            larger[: self._held] = self._buffer[: self._held]
            self._buffer = larger
            return
        self._flush()
        other = self._other if self._other is not None else memoryview(bytearray(_BUFFER))
        self._buffer, self._other = other, self._buffer

    def _flush(self) -> None:
        """Write and hash what the buffer holds."""
        full, self._held = self._buffer[: self._held], 0
        self._hasher.update(full)
        self.size += len(full)
        while full:
            full = full[self._out.write(full[:_WRITE]) :]
        if self._fd >= 0 and self.size - self._started >= _WRITEBACK:
            start_writeback(self._fd, self._started, self.size - self._started)
            self._started = self.size
        if self.on_written is not None:
            self.on_written(self.size)


def encode_header(entry: Entry) -> bytes:
    """The header blocks of an entry: one ustar block, before it a pax header when something does not fit."""
    path, kind, mode, uid, gid, size, mtime, linkname, major, minor, xattrs, _ = entry
    name = path.encode(_ENCODING, _ERRORS)
    is_plain = kind == REGULAR and not linkname and not xattrs
    if is_plain and len(name) <= 100 and not (uid | gid) >> 21 and not (size | mtime) >> 33:
        # Nearly all entries.
        return _block(name, _NUMBERS % (mode & 0o7777, uid, gid, size, mtime), kind)
    if kind == DIRECTORY:
        name = name + b"/" if name else b"./"
    link = os.fsencode(linkname) if linkname else b""
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
    if xattrs:
        records.extend(_xattr_records(xattrs))
    numbers = _NUMBERS % (mode & 0o7777, uid, gid, size, mtime)
    device = _NO_DEVICE
    if kind in {CHAR_DEVICE, BLOCK_DEVICE}:
        device = b"%07o\0%07o\0" % (major, minor)
    block = _block(name, numbers, kind, link=link, device=device, prefix=prefix)
    return _pax(records, path) + block if records else block


def _block(
    name: bytes, numbers: bytes, kind: bytes, *, link: bytes = b"", device: bytes = _NO_DEVICE, prefix: bytes = b""
) -> bytes:
    """One header block; ``numbers`` are the fields from the mode to the mtime."""
    checksum = sum(name) + sum(numbers) + kind[0] + _USUAL_SUM
    tail = _USUAL_TAIL
    if link or prefix or device is not _NO_DEVICE:
        checksum += sum(link) + sum(device) + sum(prefix) - _NO_DEVICE_SUM
        tail = b"".join((link.ljust(100, b"\0"), _MAGIC, device, prefix.ljust(167, b"\0")))
    return b"".join((name.ljust(100, b"\0"), numbers, b"%06o\0 " % checksum, kind, tail))


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
    numbers = _NUMBERS % (0o644, 0, 0, len(body), 0)
    header = _block(b"PaxHeaders/" + base, numbers, b"x")
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
