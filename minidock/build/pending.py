"""What is left to do for steps that are done: it is done while the next command starts, which so waits for no disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.build.cache import BuildCache, CacheRecord, Key
    from minidock.store.blobs import Blobs


class Pending:
    """Layers to be put among the blobs, then cache records that name them, then ends of claims on their steps, then
    directories to be removed.

    A context, whose end finishes what is pending also when a step has failed: the layers of those before it serve the
    next build. A record never precedes its layer, which is on disk when it is among the blobs.
    """

    __slots__ = ("_blobs", "_cache", "_directories", "_ends", "_layers", "_records")

    def __init__(self, blobs: Blobs, cache: BuildCache) -> None:
        self._blobs = blobs
        self._cache = cache
        self._layers: list[tuple[str, str]] = []
        self._records: list[tuple[Key, CacheRecord]] = []
        self._ends: list[Callable[[], None]] = []
        self._directories: list[str] = []

    def __enter__(self) -> Pending:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def add_layer(self, path: str, digest: str) -> None:
        """The file ``path``, with that digest, is to be a blob."""
        self._layers.append((path, digest))

    def add_record(self, key: Key, record: CacheRecord) -> None:
        """A record of the layer that was added last."""
        self._records.append((key, record))

    def add_end(self, end: Callable[[], None]) -> None:
        """Call ``end`` when the records so far are written."""
        self._ends.append(end)

    def add_directory(self, path: str) -> None:
        """A directory that nothing uses any more."""
        self._directories.append(path)

    def finish(self) -> None:
        """Do what is pending. Raises StoreError, OSError, and does not try that again; after an interruption, what was
        not done yet is done by the next call."""
        try:
            if self._layers:
                # Those that are gone were moved before an interruption.
                self._blobs.adopt_all([layer for layer in self._layers if os.path.lexists(layer[0])])
                self._layers = []
            while self._records:
                self._cache.save(*self._records[0])
                del self._records[0]
        except Exception:
            self._layers, self._records = [], []
            self._end_claims()
            raise
        self._end_claims()
        directories, self._directories = self._directories, []
        for path in directories:
            remove_tree(path)

    def _end_claims(self) -> None:
        while self._ends:
            self._ends.pop(0)()
