"""Layers compressed for the wire. The same tarball gives the same bytes, as long as the encoder is the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = 1 << 18
# Beyond it the size hardly shrinks, and the time grows.
_LEVEL = 2
_GZIP = 31
ENCODER = f"isal-{_LEVEL}"


class Encoded(NamedTuple):
    """The digest and size in bytes of what was written."""

    digest: str
    size: int


def compress_gzip(source: BinaryIO, out: BinaryIO, tell: Callable[[int], None] = lambda _: None) -> Encoded:
    """Compress a stream to its end; ``tell`` gets how many bytes were read so far. Raises OSError."""
    encoder = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
    hasher, size, done = hashlib.sha256(), 0, 0
    while data := source.read(_BLOCK):
        done += len(data)
        piece = encoder.compress(data)
        hasher.update(piece)
        out.write(piece)
        size += len(piece)
        tell(done)
    piece = encoder.flush()
    hasher.update(piece)
    out.write(piece)
    return Encoded(f"sha256:{hasher.hexdigest()}", size + len(piece))
