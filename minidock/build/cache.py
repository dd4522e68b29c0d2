"""The build cache: records that say which layer a step on top of a file system made.

A step's key is the digest of everything that decides its result (as BuildKit has it: files, not
labels); what comes before it counts as the chain ID of the layers below, so that a step that ran anew but made the same
layer changes nothing for those after it. A record is a hint: a layer that is gone makes it a miss.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import CorruptObjectError
from minidock.model.digest import chain_id, digest_of, hex_of, is_digest
from minidock.model.oci import encode_json
from minidock.store import locks
from minidock.store.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minidock.store.layout import DataRoot

_VERSION = 1


class Key(NamedTuple):
    """A step's key: the digest of ``inputs``, which the record keeps for people and for comparisons."""

    digest: str
    inputs: dict[str, Any]


class CacheRecord(NamedTuple):
    """What a step made: a layer, or None for no difference, at ``created`` (RFC 3339)."""

    diff_id: str | None
    created: str


def make_key(below: Sequence[str], **inputs: Any) -> Key:
    """The key of a step on top of the layers ``below`` (diff IDs, lowest first). ``inputs`` are JSON values."""
    everything = {"below": chain_id(below) if below else "", **inputs}
    return Key(digest_of(encode_json({"version": _VERSION, **everything})), everything)


class BuildCache:
    """The records of a data root, one JSON file for each key."""

    __slots__ = ("_directory", "_locks", "_scratch")

    def __init__(self, root: DataRoot) -> None:
        self._directory = f"{root.cache}/build"
        self._locks = f"{root.run}/steps"
        self._scratch = root.tmp
        os.makedirs(self._directory, 0o700, exist_ok=True)
        os.makedirs(self._locks, 0o700, exist_ok=True)

    def find(self, key: Key) -> CacheRecord | None:
        """The record of ``key``, None if there is none or it is damaged."""
        try:
            value = read_json(self._path(key))
        except (FileNotFoundError, CorruptObjectError):
            return None
        diff_id, created = value.get("diff_id"), value.get("created")
        if not isinstance(created, str) or not (diff_id is None or (isinstance(diff_id, str) and is_digest(diff_id))):
            return None
        return CacheRecord(diff_id, created)

    def touch(self, key: Key) -> None:
        """Note that a record is of use: the longest unused are removed first."""
        with suppress(OSError):
            os.utime(self._path(key))

    def save(self, key: Key, record: CacheRecord) -> None:
        """Write the record of ``key``, replacing an older one. Raises StoreError."""
        value = {"diff_id": record.diff_id, "created": record.created, "inputs": key.inputs}
        write_json(self._path(key), value, sync=False, scratch=self._scratch)

    def claim(self, key: Key, before_waiting: Callable[[], None]) -> Callable[[], None]:
        """Be the only one to run the step of ``key``; gives what ends that, as does the end of the process.

        ``before_waiting`` is called when somebody else is at it. The record may be there afterwards. Raises OSError.
        """
        path = f"{self._locks}/{hex_of(key.digest)}"
        fd = locks.try_passing(path)
        if fd is None:
            before_waiting()
            fd = locks.wait_passing(path)
        return partial(locks.end_passing, path, fd)

    def _path(self, key: Key) -> str:
        return f"{self._directory}/{hex_of(key.digest)}.json"


def now() -> str:
    """The time as RFC 3339 with nanoseconds, UTC."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"
