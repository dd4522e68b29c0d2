"""What builds leave behind: the directories of cache mounts, the records of steps with the layers they made, and what
ADD fetched over HTTP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from minidock.build.listings import Listings
from minidock.build.sources.http_cache import HttpCache
from minidock.engine.images import cached_layers, drivers_in_use
from minidock.engine.listings import CacheEntry, Pruned
from minidock.engine.volumes import disk_usage
from minidock.errors import CorruptObjectError, MinidockError, StoreError
from minidock.model.digest import hex_of, is_digest
from minidock.store import files, locks
from minidock.store.blobs import Blobs
from minidock.store.cache_mounts import CacheMounts
from minidock.store.collector import forgiving, mark
from minidock.store.failed_steps import FailedSteps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from minidock.engine.base import EngineBase
    from minidock.store.layout import DataRoot

MOUNT, STEP, FETCHED, FAILED_STEP = "cachemount", "step", "http", "failed"


def usage(engine: EngineBase) -> list[CacheEntry]:
    """All of it, the latest used first."""
    root = engine.ready()
    try:
        found = [*_mounts(root), *_steps(root), *_fetched(root), *_failed_steps(root)]
    except OSError as error:
        raise StoreError(f"cannot read the build cache: {error.filename}: {error.strerror}") from error
    return _counted_once(sorted(found, key=lambda entry: (-entry.used, entry.id)))


def prune(
    engine: EngineBase,
    *,
    all: bool,  # noqa: A002 - docker's word
    ids: Sequence[str] | None,
    keep_bytes: int = 0,
    max_used: int = 0,
    min_free: int = 0,
) -> Pruned:
    """Remove what may go, the longest unused first, then the layers that nothing needs any more. What is in use, or
    comes into use meanwhile, stays."""
    root = engine.ready()
    mounts = CacheMounts(root)
    freed = 0
    entries = usage(engine)
    bound = None
    if keep_bytes or max_used or min_free:
        total = sum(entry.size for entry in entries if not entry.shared)
        status = os.statvfs(root.path)
        free = status.f_bavail * status.f_frsize
        bound = room(total, free, keep_bytes=keep_bytes, max_used=max_used, min_free=min_free)
    wanted = {
        entry.id: (ids is None or entry.id in ids) and (all or not entry.shared) and not entry.busy for entry in entries
    }
    removed = []
    for entry in reversed(superfluous(entries, wanted, bound)):
        try:
            if entry.type == MOUNT:
                if not mounts.remove(entry.id):
                    continue
                freed += entry.size
            elif entry.type == FETCHED:
                freed += HttpCache(root).remove(entry.id)
            elif entry.type == FAILED_STEP:
                FailedSteps(root).remove(f"sha256:{entry.id}")
            else:
                files.unlink_if_there(f"{root.cache}/build/{entry.id}.json")
        except OSError as error:
            raise StoreError(f"cannot remove {entry.id} of the build cache: {error.strerror}") from error
        removed.append(entry.id)
    try:
        Listings(root).collect()
    except OSError as error:
        raise StoreError(f"cannot remove the listings of the build cache: {error.strerror}") from error
    with locks.exclusive(root.collection_lock):
        freed += forgiving(root, trees=drivers_in_use(engine), keep=cached_layers(root)).size
    return Pruned(tuple(removed), freed)


def room(total: int, free: int, *, keep_bytes: int, max_used: int, min_free: int) -> int:
    """How many of ``total`` bytes may stay where ``free`` are free on the disk; at least one of the others is not 0.

    ``max_used`` bounds what stays, ``min_free`` asks for what is to be free on the disk afterwards, and ``keep_bytes``
    may stay in any case (BuildKit, cache/manager.go, calculateKeepBytes).
    """
    bound = max_used or (total if min_free else 0)
    if min_free:
        bound = min(bound, total - max(0, min_free - free))
    return max(bound, keep_bytes)


def superfluous(entries: Sequence[CacheEntry], wanted: Mapping[str, bool], bound: int | None) -> list[CacheEntry]:
    """Which of the entries, the latest used first, go: those that are ``wanted`` (by ID), and with a ``bound`` only the
    longest unused, until all that stays takes no more than so many bytes. A layer goes with all its records or stays
    with them."""
    groups: dict[str, list[CacheEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.layer or entry.id, []).append(entry)
    sizes = {name: sum(entry.size for entry in members if not entry.shared) for name, members in groups.items()}
    staying = {name for name, members in groups.items() if not all(wanted[entry.id] for entry in members)}
    kept = sum(sizes[name] for name in staying)
    going = set(groups) if bound is None else set()
    for name in groups:
        if bound is not None and name not in staying:
            kept += sizes[name]
            if kept > bound:
                going.add(name)
    return [entry for entry in entries if wanted[entry.id] and (entry.layer or entry.id) in going]


def _counted_once(entries: Iterable[CacheEntry]) -> list[CacheEntry]:
    """The entries, the latest used first, where only the first of several with one layer has its size."""
    seen: set[str] = set()
    found = []
    for entry in entries:
        found.append(entry._replace(size=0) if entry.layer in seen else entry)
        if entry.layer:
            seen.add(entry.layer)
    return found


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


def _failed_steps(root: DataRoot) -> Iterator[CacheEntry]:
    """What failed steps have left; what counts is the layer that the step itself has written."""
    blobs = Blobs(root)
    for step in FailedSteps(root).list():
        layer = step.layers[-1].digest if step.wrote else ""
        yield CacheEntry(
            type=FAILED_STEP,
            id=hex_of(step.id),
            description=step.name,
            size=blobs.size(layer) if layer and blobs.has(layer) else 0,
            created=0,
            used=step.stored,
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
        size = blobs.size(layer) if layer and blobs.has(layer) else 0
        origin = record.get("origin")
        yield CacheEntry(
            type=STEP,
            id=name.removesuffix(".json"),
            description=_described(record.get("inputs")),
            size=size,
            created=0,
            used=status.st_mtime_ns,
            busy=False,
            shared=layer in needed,
            layer=layer,
            origin=origin if isinstance(origin, str) else "",
        )


def _needed(root: DataRoot) -> set[str]:
    """The blobs that images, containers and running builds need, none where the index does not tell."""
    try:
        return mark(root, failed_steps=False).blobs
    except MinidockError:
        return set()


def _described(inputs: Any) -> str:
    """A step in one line, from what decided its result."""
    if not isinstance(inputs, dict):
        return "damaged record"
    words: Iterable[Any] = inputs.get("args") or [inputs.get("destination") or inputs.get("path") or ""]
    return f"{inputs.get('instruction', 'step')} {' '.join(map(str, words))}"
