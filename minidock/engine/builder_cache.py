"""What builds leave behind: the directories of cache mounts, the records of steps with the layers they made, and what
ADD fetched over HTTP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from minidock.build.sources.http_cache import HttpCache
from minidock.engine.images import cached_layers, drivers_in_use
from minidock.engine.listings import CacheEntry, Pruned
from minidock.engine.volumes import disk_usage
from minidock.errors import CorruptObjectError, MinidockError, StoreError
from minidock.model.digest import is_digest
from minidock.store import files, locks
from minidock.store.blobs import Blobs
from minidock.store.cache_mounts import CacheMounts
from minidock.store.collector import forgiving, mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from minidock.engine.base import EngineBase
    from minidock.store.layout import DataRoot

MOUNT, STEP, FETCHED = "cachemount", "step", "http"


def usage(engine: EngineBase) -> list[CacheEntry]:
    """All of it, the latest used first."""
    root = engine.ready()
    try:
        found = [*_mounts(root), *_steps(root), *_fetched(root)]
    except OSError as error:
        raise StoreError(f"cannot read the build cache: {error.filename}: {error.strerror}") from error
    return sorted(found, key=lambda entry: (-entry.used, entry.id))


def prune(engine: EngineBase, *, all: bool, ids: Sequence[str] | None, keep_bytes: int) -> Pruned:  # noqa: A002
    """Remove what may go, the longest unused first, then the layers that nothing needs any more. What is in use, or
    comes into use meanwhile, stays."""
    root = engine.ready()
    mounts = CacheMounts(root)
    kept = freed = 0
    gone: list[CacheEntry] = []
    for entry in usage(engine):
        may_go = (ids is None or entry.id in ids) and (all or not entry.shared) and not entry.busy
        if may_go and (not keep_bytes or kept + entry.size > keep_bytes):
            gone.append(entry)
        else:
            kept += 0 if entry.shared else entry.size
    removed = []
    for entry in reversed(gone):
        try:
            if entry.type == MOUNT:
                if not mounts.remove(entry.id):
                    continue
                freed += entry.size
            elif entry.type == FETCHED:
                freed += HttpCache(root).remove(entry.id)
            else:
                files.unlink_if_there(f"{root.cache}/build/{entry.id}.json")
        except OSError as error:
            raise StoreError(f"cannot remove {entry.id} of the build cache: {error.strerror}") from error
        removed.append(entry.id)
    with locks.exclusive(root.collection_lock):
        freed += forgiving(root, trees=drivers_in_use(engine), keep=cached_layers(root)).size
    return Pruned(tuple(removed), freed)


def _mounts(root: DataRoot) -> Iterator[CacheEntry]:
    mounts = CacheMounts(root)
    for cache in mounts.list():
        yield CacheEntry(
            type=MOUNT,
            id=cache.name,
            description=f"cache mount {cache.id!r}" if cache.id else f"damaged cache mount: {cache.problem}",
            size=disk_usage(f"{mounts.directory}/{cache.name}"),
            created=cache.created,
            used=cache.used,
            busy=cache.busy,
            shared=False,
        )


def _fetched(root: DataRoot) -> Iterator[CacheEntry]:
    for record in HttpCache(root).entries():
        yield CacheEntry(
            type=FETCHED,
            id=record.key,
            description=record.url,
            size=record.size,
            created=0,
            used=int(record.used * 10**9),
            busy=False,
            shared=False,
        )


def _steps(root: DataRoot) -> Iterator[CacheEntry]:
    try:
        names = os.listdir(f"{root.cache}/build")
    except FileNotFoundError:
        return
    blobs = Blobs(root)
    needed = _needed(root)
    counted: set[str] = set()
    for name in sorted(names):
        path = f"{root.cache}/build/{name}"
        try:
            status = os.lstat(path)
            record = files.read_json(path)
        except FileNotFoundError:
            continue
        except (OSError, CorruptObjectError):
            record = {}
        diff_id = record.get("diff_id")
        layer = diff_id if isinstance(diff_id, str) and is_digest(diff_id) else ""
        size = blobs.size(layer) if layer and layer not in counted and blobs.has(layer) else 0
        counted.add(layer)
        yield CacheEntry(
            type=STEP,
            id=name.removesuffix(".json"),
            description=_described(record.get("inputs")),
            size=size,
            created=0,
            used=status.st_mtime_ns,
            busy=False,
            shared=layer in needed,
        )


def _needed(root: DataRoot) -> set[str]:
    """The blobs that images, containers and running builds need, none where the index does not tell."""
    try:
        return mark(root).blobs
    except MinidockError:
        return set()


def _described(inputs: Any) -> str:
    """A step in one line, from what decided its result."""
    if not isinstance(inputs, dict):
        return "damaged record"
    words: Iterable[Any] = inputs.get("args") or [inputs.get("destination") or inputs.get("path") or ""]
    return f"{inputs.get('instruction', 'step')} {' '.join(map(str, words))}"
