"""The file that holds a layer's index: the EROFS image, padded to 512 bytes, and a trailer of 512 more.

The trailer says which layer the image belongs to and holds checksums, by which a file that a power failure tore, or a
disk damaged, is found before the kernel sees it. EROFS ignores what follows the blocks that its superblock counts. The
checksums are no proof against a forger: whoever can write the file owns the data root.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib
from typing import NamedTuple

from minidock.errors import CorruptObjectError

_BLOCK = 512
# Magic, version, flags, diff ID, bytes of the tar, bytes of the image, the image's checksum; then zeros, and at the
# block's end the checksum of all that.
_TRAILER = struct.Struct("<8sII32sQQI440x")
_CHECKSUM = struct.Struct("<I")
_MAGIC = b"mdockidx"
_VERSION = 1
_SELF_CONTAINED = 1


class Header(NamedTuple):
    """What a trailer says: whether the index is the same above any layers, and the bytes of its image."""

    self_contained: bool
    image_size: int


class _Trailer(NamedTuple):
    diff_id: bytes
    tar_size: int
    checksum: int
    header: Header


def seal(image: bytes, *, diff_id: str, tar_size: int, self_contained: bool) -> bytes:
    """The file's bytes for the index ``image`` of the layer ``diff_id``, whose tar has ``tar_size`` bytes.

    The image gets a UUID made of the diff ID and of itself. Overlayfs wants one for each lower file system: without it,
    a file that is copied up shows another inode number after the next mount. Raises InvalidReferenceError.
    """
    from minidock.drivers.erofs_format import with_uuid
    from minidock.model.digest import hex_of

    digest = bytes.fromhex(hex_of(diff_id))
    first, rest = with_uuid(image, digest[:12] + _CHECKSUM.pack(zlib.crc32(image)))
    checksum = zlib.crc32(rest, zlib.crc32(first))
    padding = bytes(-len(image) % _BLOCK)
    flags = _SELF_CONTAINED if self_contained else 0
    trailer = _TRAILER.pack(_MAGIC, _VERSION, flags, digest, tar_size, len(image), checksum)
    return b"".join((first, rest, padding, trailer, _CHECKSUM.pack(zlib.crc32(trailer))))


def load(path: str, *, diff_id: str, tar_size: int) -> Header:
    """Read the whole file and check it: an index of the layer ``diff_id``, whose tar has ``tar_size`` bytes.

    Raises CorruptObjectError for anything else, FileNotFoundError when there is none, OSError.
    """
    data = read(path)
    trailer = _decoded(path, len(data), data[-_BLOCK:])
    size = trailer.header.image_size
    if f"sha256:{trailer.diff_id.hex()}" != diff_id or trailer.tar_size != tar_size:
        raise _corrupt(path, "belongs to another layer")
    if zlib.crc32(memoryview(data)[:size]) != trailer.checksum or any(data[size:-_BLOCK]):
        raise _corrupt(path, "does not match its checksum")
    return trailer.header


def peek(path: str) -> Header:
    """Read the trailer alone, which says nothing about the image's state.

    Raises CorruptObjectError, FileNotFoundError when there is none, OSError.
    """
    fd = _open(path)
    try:
        size = os.fstat(fd).st_size
        return _decoded(path, size, os.pread(fd, _BLOCK, max(size - _BLOCK, 0))).header
    finally:
        os.close(fd)


def read(path: str) -> bytes:
    """All bytes of the file, unchecked. Raises CorruptObjectError for what is no file, FileNotFoundError, OSError."""
    with open(_open(path), "rb") as file:
        return file.read()


def _open(path: str) -> int:
    # Something else than a file must neither be followed nor waited for.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise _corrupt(path, "is no file") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _corrupt(path, "is no file")
    return fd


def _decoded(path: str, file_size: int, block: bytes) -> _Trailer:
    """The last block of a file of ``file_size`` bytes."""
    if len(block) != _BLOCK:
        raise _corrupt(path, "is cut short")
    content = block[: _TRAILER.size]
    magic, version, flags, diff_id, tar_size, image_size, checksum = _TRAILER.unpack(content)
    if magic != _MAGIC or _CHECKSUM.unpack_from(block, _TRAILER.size)[0] != zlib.crc32(content):
        raise _corrupt(path, "has no valid trailer")
    if version != _VERSION or flags & ~_SELF_CONTAINED:
        raise _corrupt(path, f"is of the unknown version {version}")
    if file_size != image_size + -image_size % _BLOCK + _BLOCK:
        raise _corrupt(path, f"has {file_size} bytes, not those of an image of {image_size}")
    return _Trailer(diff_id, tar_size, checksum, Header(bool(flags & _SELF_CONTAINED), image_size))


def _corrupt(path: str, what: str) -> CorruptObjectError:
    return CorruptObjectError(f"the layer index {path} {what}")
