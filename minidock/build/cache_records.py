"""Cache records outside of a data root: as a folder of caches has them, one file for each, and as an image keeps them.

Whoever wrote them is a stranger. A record names digests, a size and a time, and nothing else of it is used.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import CorruptObjectError
from minidock.model.digest import is_digest
from minidock.model.oci import decode_object, encode_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The annotation of a manifest that holds the records of its layers. A manifest may have 4 MiB in all.
INLINE_KEY = "io.minidock.cache"
MAX_INLINE = 1 << 20
MAX_RECORD = 4096
# No file system of Linux has larger files.
_MAX_LAYER = 1 << 63
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")


class Offer(NamedTuple):
    """What a record says: a layer of ``size`` bytes, or None for no difference, made at ``created`` (RFC 3339). An
    image's records have no sizes: -1."""

    diff_id: str | None
    created: str
    size: int = -1


class Used(NamedTuple):
    """A record that a build used: ``key`` and ``below`` are digests (``below`` the chain ID of the layers that the
    step stands on, or empty), ``instruction`` is a word for people."""

    key: str
    diff_id: str | None
    created: str
    below: str = ""
    instruction: str = ""


def encode_record(used: Used, size: int) -> bytes:
    """A record's file. Raises nothing."""
    value: dict[str, Any] = {"instruction": used.instruction, "layer": used.diff_id, "created": used.created}
    if used.diff_id is not None:
        value["size"] = size
    return encode_json(value) + b"\n"


def decode_record(data: bytes) -> Offer:
    """Read a record's file. Raises CorruptObjectError for anything that is not one."""
    value = decode_object(data, what="record")
    offer = _offer(value.get("layer"), value.get("created"))
    size = value.get("size")
    if offer.diff_id is None:
        return offer
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _MAX_LAYER:
        raise CorruptObjectError("the record has no valid size")
    return offer._replace(size=size)


def encode_inline(records: Iterable[Used]) -> str:
    """The annotation's value: ``{"records": {KEY: [LAYER or null, CREATED]}}``."""
    found = {used.key: [used.diff_id, used.created] for used in sorted(records, key=lambda used: used.key)}
    return encode_json({"records": found}).decode()


def decode_inline(text: str, layers: Iterable[str]) -> Mapping[str, Offer]:
    """The records of an image that has ``layers`` (diff IDs), by key. Raises CorruptObjectError for a value that is
    none; a record of it that makes no sense, or names another layer, is left out."""
    if len(text) > MAX_INLINE:
        raise CorruptObjectError(f"the cache records have {len(text)} bytes, more than the {MAX_INLINE} allowed")
    records = decode_object(text.encode("utf-8", "surrogatepass"), what="list of cache records").get("records")
    if not isinstance(records, dict):
        raise CorruptObjectError("the list of cache records has no records")
    own = set(layers)
    found: dict[str, Offer] = {}
    for key, value in records.items():
        try:
            offer = _offer(*value[:2]) if isinstance(value, list) and len(value) >= 2 else None
        except CorruptObjectError:
            continue
        if offer is not None and is_digest(key) and (offer.diff_id is None or offer.diff_id in own):
            found[key] = offer
    return found


def _offer(diff_id: Any, created: Any) -> Offer:
    if not (diff_id is None or (isinstance(diff_id, str) and is_digest(diff_id))):
        raise CorruptObjectError("the record names no valid layer")
    if not isinstance(created, str) or not _TIME.fullmatch(created):
        raise CorruptObjectError("the record has no valid time")
    try:
        datetime.fromisoformat(created[:19])
    except ValueError:
        raise CorruptObjectError("the record has no valid time") from None
    return Offer(diff_id, created)
