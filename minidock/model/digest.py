"""Content digests: ``sha256:`` and 64 lower-case hexadecimal digits (OCI image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

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


def _sha256() -> Any:
    """The interpreter's own SHA-256: hashlib loads OpenSSL's, which is faster on much data but costs a start 2 ms."""
    for module in ("_sha2", "_sha256"):
        try:
            return __import__(module).sha256
        except ImportError:
            # Python 3.12 has the first, 3.11 the second.
            continue
    import hashlib

    return hashlib.sha256
