"""Tar streams byte for byte: headers, extended headers and sparse maps that no honest program would write.

Every function gives bytes to be joined; ``END`` closes an archive. Names, numbers and checksums are exactly what is
asked for. Formats: POSIX.1-2017 pax(1) ("ustar Interchange Format", "pax Extended Header"), GNU tar's manual ("Basic
Tar Format", "Storing Sparse Files").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

BLOCK = 512
END = bytes(2 * BLOCK)

REGULAR, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK, OLD_SPARSE = b"x", b"g", b"L", b"K", b"S"

# Start and length of each field of a ustar header.
_FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "kind": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "major": (329, 8),
    "minor": (337, 8),
    "prefix": (345, 155),
    "sparse": (386, 109),
}
_USTAR, GNU_MAGIC = b"ustar\x0000", b"ustar  \0"


def octal(value: int, width: int) -> bytes:
    """A number as nearly every writer has it: octal digits and a NUL, ``width`` bytes in all."""
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """GNU tar's form for what octal cannot hold, negative numbers too."""
    if value < 0:
        return value.to_bytes(width, "big", signed=True)
    return bytes((0x80,)) + value.to_bytes(width - 1, "big")


def header(
    name: bytes,
    kind: bytes = REGULAR,
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    raw: Mapping[str, bytes] | None = None,
) -> bytes:
    """One header block with a true checksum. ``raw`` replaces whole fields by their names with these bytes, the
    checksum too. Raises ValueError for bytes that do not fit their field."""
    values = {
        "name": name,
        "mode": octal(mode, 8),
        "uid": octal(uid, 8),
        "gid": octal(gid, 8),
        "size": octal(size, 12),
        "mtime": octal(mtime, 12),
        "kind": kind,
        "magic": _USTAR,
        "major": octal(0, 8),
        "minor": octal(0, 8),
    } | dict(raw or {})
    block = bytearray(BLOCK)
    for field, value in values.items():
        start, length = _FIELDS[field]
        if len(value) > length:
            raise ValueError(f"{value!r} does not fit the header's {field}")
        block[start : start + len(value)] = value
    if "checksum" not in values:
        block[148:156] = b"        "
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """Content, filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes, data: bytes = b"", *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> bytes:
    """A regular file."""
    return header(name, size=len(data), mode=mode, uid=uid, gid=gid) + padded(data)


def directory(name: bytes, *, mode: int = 0o755) -> bytes:
    """A directory."""
    return header(name, DIRECTORY, mode=mode)


def named(name: bytes, entry: bytes) -> bytes:
    """An entry under another name, of any length, by a pax record."""
    return pax({b"path": name}) + entry


def symlink(name: bytes, target: bytes) -> bytes:
    """A symbolic link; a target of more than 100 bytes goes to a pax record."""
    if len(target) > 100:
        return pax({b"linkpath": target}) + header(name, SYMLINK, mode=0o777)
    return header(name, SYMLINK, mode=0o777, raw={"link": target})


def hard_link(name: bytes, target: bytes) -> bytes:
    """Another name of the entry ``target``."""
    return header(name, LINK, raw={"link": target})


def device(name: bytes, major: int, minor: int, *, kind: bytes = CHAR, mode: int = 0o666) -> bytes:
    """A device node."""
    return header(name, kind, mode=mode, raw={"major": octal(major, 8), "minor": octal(minor, 8)})


def extension(kind: bytes, body: bytes, *, claimed: int | None = None) -> bytes:
    """An extended header of any kind; ``claimed`` is the size that it states, its true one if None."""
    size = len(body) if claimed is None else claimed
    return header(b"extended", kind, raw={"size": base256(size, 12)}) + padded(body)


def record(key: bytes, value: bytes) -> bytes:
    """A pax record with its length, which counts itself."""
    size = len(key) + len(value) + 3
    while len(b"%d" % size) + len(key) + len(value) + 3 != size:
        size += 1
    return b"%d %b=%b\n" % (size, key, value)


def pax(records: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], *, kind: bytes = PAX) -> bytes:
    """A pax header with these records in order; pairs may repeat a key."""
    pairs = records.items() if isinstance(records, Mapping) else records
    return extension(kind, b"".join(record(key, value) for key, value in pairs))


def with_xattrs(xattrs: Mapping[bytes, bytes], entry: bytes) -> bytes:
    """An entry with extended attributes."""
    return pax({b"SCHILY.xattr." + name: value for name, value in xattrs.items()}) + entry


def old_sparse(name: bytes, size: int, runs: Iterable[tuple[int, int]]) -> bytes:
    """The header, and the blocks of further runs, of a sparse file in GNU tar's old form; its data has to follow."""
    structs = [octal(offset, 12) + octal(length, 12) for offset, length in runs]
    stored = sum(int(struct[12:23], 8) for struct in structs)
    first, rest = structs[:4], structs[4:]
    area = b"".join(first).ljust(96, b"\0") + bytes((bool(rest),)) + octal(size, 12)
    blocks = [header(name, OLD_SPARSE, size=stored, raw={"magic": GNU_MAGIC, "sparse": area})]
    while rest:
        taken, rest = rest[:21], rest[21:]
        blocks.append((b"".join(taken).ljust(504, b"\0") + bytes((bool(rest),))).ljust(BLOCK, b"\0"))
    return b"".join(blocks)
