"""Mark and sweep: which blobs and layers something needs, and the removal of the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from minidock.errors import CorruptObjectError, MinidockError
from minidock.model.digest import is_digest
from minidock.model.oci import INDEX, Descriptor, ImageConfig, decode_manifest, decode_object
from minidock.store import locks, staging
from minidock.store.blobs import Blobs
from minidock.store.containers import ContainerStore
from minidock.store.failed_steps import FailedSteps
from minidock.store.index import read_index

if TYPE_CHECKING:
    from minidock.store.layout import DataRoot

_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_MAX_NESTING = 4


class Trees(Protocol):
    """A storage driver's layers, as far as the collector knows them: each key is a diff ID's or chain ID's digits."""

    def keys(self) -> Iterable[str]: ...

    def remove(self, key: str, /) -> None: ...


class Live(NamedTuple):
    """What is needed: digests of blobs, and diff IDs and chain IDs of layers."""

    blobs: set[str]
    layers: set[str]


class Collected(NamedTuple):
    """What was removed; ``size`` is the bytes of the blobs."""

    blobs: tuple[str, ...]
    trees: tuple[str, ...]
    size: int


def collect(root: DataRoot, *, trees: Sequence[Trees] = (), keep: Iterable[str] = ()) -> Collected:
    """Remove every blob and layer that no image, container, failed step, live staging or digest in ``keep`` needs.

    Holds the collection lock alone. Raises OSError, StoreError.
    """
    with locks.exclusive(root.collection_lock):
        return collect_locked(root, trees=trees, keep=keep)


def collect_locked(root: DataRoot, *, trees: Sequence[Trees] = (), keep: Iterable[str] = ()) -> Collected:
    """``collect`` for a caller that holds the collection lock alone already."""
    live = mark(root, keep=keep)
    blobs = Blobs(root)
    removed, size = [], 0
    for digest in sorted(blobs.all()):
        if digest not in live.blobs:
            size += blobs.remove(digest)
            removed.append(digest)
    removed_trees = []
    for driver in trees:
        for key in sorted(driver.keys()):
            digest = key if key.startswith("sha256:") else f"sha256:{key}"
            if is_digest(digest) and digest not in live.layers:
                driver.remove(key)
                removed_trees.append(digest)
    return Collected(tuple(removed), tuple(removed_trees), size)


def mark(root: DataRoot, *, keep: Iterable[str] = (), failed_steps: bool = True) -> Live:
    """What is needed now; exact while the collection lock is held alone. Without ``failed_steps``, what only those of
    builds need is not.

    A manifest or configuration that is missing or damaged needs nothing beyond itself: it can never be used again.
    Raises CorruptObjectError for a damaged index, OSError and StoreError when something cannot be read.
    """
    live = Live(set(), set())
    blobs = Blobs(root)
    for entry in read_index(root).entries:
        _mark_manifest(blobs, Descriptor(entry.media_type, entry.digest, entry.size), live, depth=0)
    for image_id, diff_ids in ContainerStore(root).needs():
        live.blobs.add(image_id)
        _mark_layers(diff_ids, live)
    for step in FailedSteps(root).list() if failed_steps else ():
        live.blobs.update((step.id, *(layer.digest for layer in step.layers)))
        _mark_layers(step.diff_ids, live)
    for digest in (*staging.staged_digests(root), *keep):
        live.blobs.add(digest)
        live.layers.add(digest)
    return live


def contained(root: DataRoot, diff_ids: Sequence[str]) -> set[str]:
    """The digits that name ``diff_ids`` and the layers of containers, running or not, and of live stagings.

    Raises OSError.
    """
    live = Live(set(), set())
    _mark_layers(diff_ids, live)
    for _, needed in ContainerStore(root).needs():
        _mark_layers(needed, live)
    live.layers.update(staging.staged_digests(root))
    return {digest.removeprefix("sha256:") for digest in live.layers}


def _mark_manifest(blobs: Blobs, descriptor: Descriptor, live: Live, *, depth: int) -> None:
    live.blobs.add(descriptor.digest)
    try:
        data = blobs.read(descriptor.digest)
        if descriptor.media_type in {INDEX, _DOCKER_INDEX}:
            children = decode_object(data, what="image index").get("manifests")
            if depth < _MAX_NESTING and isinstance(children, list):
                for child in children:
                    _mark_manifest(blobs, Descriptor.from_json(child), live, depth=depth + 1)
            return
        manifest = decode_manifest(data)
        live.blobs.add(manifest.config.digest)
        live.blobs.update(layer.digest for layer in manifest.layers)
        _mark_layers(ImageConfig.decode(blobs.read(manifest.config.digest)).diff_ids, live)
    except CorruptObjectError:
        return


def _mark_layers(diff_ids: Sequence[str], live: Live) -> None:
    """A layer's blob and its tree, which is keyed by the diff ID or by the chain ID (OCI config.md)."""
    live.blobs.update(diff_ids)
    live.layers.update(diff_ids)
    chain = ""
    for diff_id in diff_ids:
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest() if chain else diff_id
        live.layers.add(chain)


def forgiving(root: DataRoot, *, trees: Sequence[Trees] = (), keep: Iterable[str] = ()) -> Collected:
    """``collect_locked`` after a removal that has succeeded already: what fails here is left to the next one."""
    try:
        return collect_locked(root, trees=trees, keep=keep)
    except (MinidockError, OSError):
        return Collected((), (), 0)
