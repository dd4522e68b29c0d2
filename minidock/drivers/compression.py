"""Compressed archives as plain streams, told apart by content, with a limit on how far they may grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers.tar_fields import verify_checksum
from minidock.drivers.tar_format import BLOCK
from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable
    from lzma import LZMADecompressor

    from zstandard import ZstdDecompressionObj

    from minidock.drivers.tar_format import Reader

    Opened = tuple[Reader, tuple[type[Exception], ...]]

_GZIP = b"\x1f\x8b"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"
_ZSTD = b"\x28\xb5\x2f\xfd"
_HEAD = 6
# What a stream may grow to whatever its size, and beyond that, the growth that no honest archive shows.
_FREE = 1 << 30
_RATIO = 250
# What an xz stream may ask for: its strongest preset has a dictionary of 64 MiB, its format allows 4 GiB.
_XZ_MEMORY = 128 << 20
_ZSTD_WINDOW = 128 << 20
# Four bytes may become 128 KiB, and all that a piece becomes comes at once.
_ZSTD_CHUNK = 1 << 11
_CHUNK = 1 << 17


class Plain:
    """The plain bytes of ``stream``, which may be compressed with gzip, bzip2, xz or zstandard.

    ``read`` raises ArchiveError for damaged compression and for a stream that grows beyond reason; the constructor
    reads the first bytes. Errors of ``stream`` itself pass through.
    """

    __slots__ = ("_errors", "_grown", "_source", "_stream")

    def __init__(self, stream: Reader) -> None:
        head = stream.read(_HEAD)
        while len(head) < _HEAD and (more := stream.read(_HEAD - len(head))):
            head += more
        self._source = _Counted(stream, head)
        self._grown = 0
        self._errors: tuple[type[Exception], ...] = ()
        self._stream: Reader = self._source
        opener = _opener(head)
        if opener is not None:
            self._stream, self._errors = opener(self._source)

    def read(self, size: int = -1, /) -> bytes:
        if not self._errors:
            return self._source.read(size)
        try:
            data = self._stream.read(size)
        except self._errors as error:
            if self._source.failed:
                raise
            raise ArchiveError(f"the archive's compression is damaged: {error}") from error
        self._grown += len(data)
        if self._grown > max(_FREE, self._source.count * _RATIO):
            raise ArchiveError(f"the archive grows to more than {_RATIO} times its size when it is decompressed")
        return data


def is_archive(stream: BinaryIO) -> bool:
    """Whether a seekable stream is a tar archive, plain or compressed; it is rewound. Raises OSError."""
    stream.seek(0)
    try:
        plain = Plain(stream)
        block = b""
        while len(block) < BLOCK and (more := plain.read(BLOCK - len(block))):
            block += more
        if len(block) < BLOCK or not any(block):
            return False
        verify_checksum(block)
    except ArchiveError:
        return False
    finally:
        stream.seek(0)
    return True


def is_compressed(head: bytes) -> bool:
    """Whether a stream that begins so is compressed in a way that is known here."""
    return _opener(head) is not None


class _Counted:
    """A stream with its first bytes put back, and a count of what was taken."""

    __slots__ = ("_head", "_stream", "count", "failed")

    def __init__(self, stream: Reader, head: bytes) -> None:
        self._stream = stream
        self._head = head
        self.count = 0
        self.failed = False

    def read(self, size: int = -1, /) -> bytes:
        if self._head and size:
            data = self._head if size < 0 else self._head[:size]
            self._head = self._head[len(data) :]
        else:
            try:
                data = self._stream.read(size)
            except OSError:
                self.failed = True
                raise
        self.count += len(data)
        return data


def _opener(head: bytes) -> Callable[[_Counted], Opened] | None:
    for magic, opener in ((_GZIP, _gzip), (_BZIP2, _bzip2), (_XZ, _xz), (_ZSTD, _zstd)):
        if head.startswith(magic):
            return opener
    return None


def _gzip(source: _Counted) -> Opened:
    import gzip
    import zlib

    return gzip.GzipFile(fileobj=source), (EOFError, OSError, zlib.error)  # type: ignore[call-overload]


def _bzip2(source: _Counted) -> Opened:
    import bz2

    return bz2.BZ2File(source), (EOFError, OSError, ValueError)  # type: ignore[call-overload]


def _xz(source: _Counted) -> Opened:
    import lzma

    return _Xz(source, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)), (EOFError, lzma.LZMAError)


def _zstd(source: _Counted) -> Opened:
    import zstandard

    # A frame may ask for a window of gigabytes; the strongest preset has 128 MiB.
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    return _Zstd(source, decoder.decompressobj), (EOFError, zstandard.ZstdError)


class _Zstd:
    """The plain bytes of zstandard frames, one after the other. The library's own stream takes an end in the middle of
    a frame for the end of all."""

    __slots__ = ("_decoder", "_make", "_plain", "_source")

    def __init__(self, source: _Counted, make: Callable[[], ZstdDecompressionObj]) -> None:
        self._source = source
        self._make = make
        self._decoder: ZstdDecompressionObj | None = None
        self._plain = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        """Raises EOFError for a truncated stream, ZstdError for a damaged one and one that needs too much memory."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        while size and not self._plain:
            if not self._decode():
                return b""
        data = bytes(self._plain[:size])
        self._plain = self._plain[size:]
        return data

    def _decode(self) -> bool:
        """Have some more plain bytes, or none yet; False at the end."""
        data = b""
        if self._decoder is not None and self._decoder.eof:
            data, self._decoder = self._decoder.unused_data, None
        data = data or self._source.read(_ZSTD_CHUNK)
        if not data:
            if self._decoder is not None:
                raise EOFError("it ends too early")
            return False
        if self._decoder is None:
            self._decoder = self._make()
        self._plain = memoryview(self._decoder.decompress(data))
        return True


class _Xz:
    """The plain bytes of xz streams, one after the other. The library's own file object takes no limit on memory."""

    __slots__ = ("_decoder", "_make", "_source")

    def __init__(self, source: _Counted, make: Callable[[], LZMADecompressor]) -> None:
        self._source = source
        self._make = make
        self._decoder = make()

    def read(self, size: int = -1, /) -> bytes:
        """Raises EOFError for a truncated stream, LZMAError for a damaged one and one that needs too much memory."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        while size:
            data = b""
            if self._decoder.eof:
                # Streams may be padded with zeros (The .xz File Format, 2.2).
                data = self._decoder.unused_data.lstrip(b"\0")
                while not data:
                    more = self._source.read(_CHUNK)
                    if not more:
                        return b""
                    data = more.lstrip(b"\0")
                self._decoder = self._make()
            elif self._decoder.needs_input:
                data = self._source.read(_CHUNK)
                if not data:
                    raise EOFError("it ends too early")
            plain = self._decoder.decompress(data, size)
            if plain:
                return plain
        return b""
