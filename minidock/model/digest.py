"""Content digests: ``sha256:`` and 64 lower-case hexadecimal digits (OCI image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from minidock.errors import InvalidReferenceError

_HEX = frozenset("0123456789abcdef")
_PREFIX = "sha256:"

EMPTY_DIGEST = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def parse_digest(text: str) -> str:
    """Return ``text`` if it is a sha256 digest, else raise InvalidReferenceError.

    A digest becomes a file name, so nothing else may ever be taken for one.
    """
    if not is_digest(text):
        raise InvalidReferenceError(f"invalid digest {text!r}", hint="a digest is sha256: and 64 hexadecimal digits")
    return text


def is_digest(text: str) -> bool:
    """True for ``sha256:`` and 64 lower-case hexadecimal digits."""
    return text.startswith(_PREFIX) and is_id(text[len(_PREFIX) :])


def is_id(text: str) -> bool:
    """True for 64 lower-case hexadecimal digits: a full container ID, or the part of a digest after ``sha256:``."""
    return len(text) == 64 and _HEX.issuperset(text)


def hex_of(digest: str) -> str:
    """The 64 hexadecimal digits of a valid digest."""
    return parse_digest(digest)[7:]


def digest_of(data: bytes) -> str:
    """The digest of ``data``, which is small: a manifest, a configuration."""
    return f"sha256:{_sha256()(data).hexdigest()}"


def chain_id(diff_ids: Sequence[str]) -> str:
    """The chain ID of layers, lowest first (OCI image-spec, config.md, "Layer ChainID")."""
    if not diff_ids:
        raise ValueError("a chain ID needs at least one layer")
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = digest_of(f"{chain} {diff_id}".encode())
    return chain


class Chain:
    """Layers, lowest first, and the chain IDs of those that somebody asks for, each worked out once."""

    __slots__ = ("_ids", "diff_ids")

    def __init__(self, diff_ids: Sequence[str]) -> None:
        self.diff_ids = diff_ids
        self._ids = list(diff_ids[:1])

    def id(self, count: int) -> str:
        """The chain ID of the lowest ``count`` layers, 1 and more."""
        while len(self._ids) < count:
            self._ids.append(chain_id((self._ids[-1], self.diff_ids[len(self._ids)])))
        return self._ids[count - 1]


def _sha256() -> Any:
    """The interpreter's own SHA-256: hashlib loads OpenSSL's, which is faster on much data but costs a start 2 ms."""
    # A module that is not there is looked for in every directory of the path, each time: it is named by the version.
    try:
        return __import__("_sha2" if sys.version_info >= (3, 12) else "_sha256").sha256
    except ImportError:
        import hashlib

        return hashlib.sha256
