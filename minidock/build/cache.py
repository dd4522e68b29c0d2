"""The build cache: records that say which layer a step on top of a file system made.

A step's key is the digest of everything that decides its result (as BuildKit has it: files, not
labels); what comes before it counts as the chain ID of the layers below, so that a step that ran anew but made the same
layer changes nothing for those after it. A record is a hint: a layer that is gone makes it a miss.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import CorruptObjectError
from minidock.model.digest import chain_id, digest_of, hex_of, is_digest
from minidock.model.oci import encode_json
from minidock.store import locks
from minidock.store.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from minidock.build.selection import Selection
    from minidock.store.layout import DataRoot

# The layers of version 1 had the time of the build in them.
_VERSION = 2
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Key(NamedTuple):
    """A step's key: the digest of ``inputs``, which the record keeps for people and for comparisons.

    So it does ``about``, what is known of the step and decides nothing; ``copied`` is what was looked at for the key,
    whose listings are kept with the record.
    """

    digest: str
    inputs: dict[str, Any]
    about: Mapping[str, Any] = _NOTHING
    copied: tuple[Selection, ...] = ()


class CacheRecord(NamedTuple):
    """What a step made: a layer, or None for no difference. ``created`` is the latest time of what went into it (RFC
    3339), or SOURCE_DATE_EPOCH: never the time of the build. ``origin`` names the cache of elsewhere that it was taken
    from, for people."""

    diff_id: str | None
    created: str
    origin: str = ""


def make_key(below: Sequence[str], **inputs: Any) -> Key:
    """The key of a step on top of the layers ``below`` (diff IDs, lowest first). ``inputs`` are JSON values."""
    everything = {"below": chain_id(below) if below else "", **inputs}
    return Key(digest_of(encode_json({"version": _VERSION, **everything})), everything)


def dated(epoch: int | None) -> dict[str, Any]:
    """What SOURCE_DATE_EPOCH, in seconds, adds to the inputs of a step; nothing if it is not given."""
    return {} if epoch is None else {"epoch": epoch}


class BuildCache:
    """The records of a data root, one JSON file for each key. ``on_use`` is told each that is found or saved."""

    __slots__ = ("_directory", "_locks", "_root", "_scratch", "on_use")

    def __init__(self, root: DataRoot, *, make: bool = True) -> None:
        """Without ``make`` nothing is made that is not there: the cache is only asked."""
        self._root = root
        self.on_use: Callable[[Key, CacheRecord], None] | None = None
        self._directory = f"{root.cache}/build"
        self._locks = f"{root.run}/steps"
        self._scratch = root.tmp
        if make:
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
        record = CacheRecord(diff_id, created)
        if self.on_use is not None:
            self.on_use(key, record)
        return record

    def touch(self, key: Key) -> None:
        """Note that a record is of use: the longest unused are removed first."""
        with suppress(OSError):
            os.utime(self._path(key))

    def save(self, key: Key, record: CacheRecord) -> None:
        """Write the record of ``key``, replacing an older one. Raises StoreError."""
        value = {"diff_id": record.diff_id, "created": record.created, "inputs": key.inputs, "about": {**key.about}}
        if record.origin:
            value["origin"] = record.origin
        write_json(self._path(key), value, sync=False, scratch=self._scratch)
        if self.on_use is not None:
            self.on_use(key, record)
        if key.copied:
            from minidock.build.listings import Listings, listing_of

            for selection in key.copied:
                Listings(self._root).keep(listing_of(selection))

    def claim(self, key: Key, finish: Callable[[], None], before_waiting: Callable[[], None]) -> Callable[[], None]:
        """Be the only one to run the step of ``key``; gives what ends that, as does the end of the process.

        ``finish`` is called when somebody is at it, and is to end the caller's own claims; ``before_waiting`` then, if
        it is somebody else. The record may be there afterwards. Raises OSError.
        """
        path = f"{self._locks}/{hex_of(key.digest)}"
        fd = locks.try_passing(path)
        if fd is None:
            finish()
            fd = locks.try_passing(path)
        if fd is None:
            before_waiting()
            fd = locks.wait_passing(path)
        return partial(locks.end_passing, path, fd)

    def sweep_claims(self) -> None:
        """Remove what is left of claims whose makers were killed. Raises OSError."""
        for name in os.listdir(self._locks):
            path = f"{self._locks}/{name}"
            fd = locks.try_passing(path)
            if fd is not None:
                locks.end_passing(path, fd)

    def _path(self, key: Key) -> str:
        return f"{self._directory}/{hex_of(key.digest)}.json"
