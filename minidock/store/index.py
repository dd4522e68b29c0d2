"""``index.json``: the names of images (OCI image-spec, image-index.md).

An entry is the descriptor of a manifest. Its ``org.opencontainers.image.ref.name`` annotation is the full reference, as
skopeo and umoci read it; an image without a name keeps one entry without that annotation. Two annotations are our own:
when the image was stored, and the digest of its configuration, which is its ID.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from minidock.errors import CorruptObjectError, InvalidReferenceError, StoreError
from minidock.model.digest import is_digest
from minidock.model.oci import REF_NAME, Descriptor
from minidock.model.reference import parse_reference
from minidock.store import files, locks
from minidock.store.layout import DataRoot

STORED = "io.minidock.stored"
CONFIG_DIGEST = "io.minidock.config"
# What a registry calls the image: ``HOST/PATH@DIGEST``, several with blanks between them.
REPO_DIGESTS = "io.minidock.repo-digests"


class Entry(NamedTuple):
    """One line of the index, of which ``raw`` is kept verbatim.

    ``name`` is a full reference or empty; ``config`` is the image's ID, empty where another program wrote the entry;
    ``stored`` is nanoseconds since the epoch, 0 if unknown.
    """

    digest: str
    media_type: str
    size: int
    name: str
    config: str
    stored: int
    raw: dict[str, Any]

    @property
    def repo_digests(self) -> tuple[str, ...]:
        """What registries call the image, as ``HOST/PATH@DIGEST``."""
        return tuple(str((self.raw.get("annotations") or {}).get(REPO_DIGESTS, "")).split())


class Index:
    """The entries of ``index.json`` in their order, and whatever else the file holds."""

    __slots__ = ("entries", "raw")

    def __init__(self, raw: dict[str, Any], entries: list[Entry]) -> None:
        self.raw = raw
        self.entries = entries

    def set_name(self, name: str, manifest: Descriptor, config: str, *, stored: int = 0) -> None:
        """Let ``name`` mean this image; the image that it meant before stays, without a name if it was its last. An
        image that is here already was stored when it was."""
        stored = stored or next((entry.stored for entry in self.entries if entry.digest == manifest.digest), 0)
        bearers = [entry for entry in self.entries if entry.name == name]
        if any(entry.digest == manifest.digest for entry in bearers):
            return
        for entry in bearers:
            self.drop(entry, keep_image=True)
        self.entries = [e for e in self.entries if e.digest != manifest.digest or e.name]
        self.entries.append(make_entry(name, manifest, config, stored=stored))

    def add_unnamed(self, manifest: Descriptor, config: str, *, stored: int = 0) -> None:
        """Make sure that the image has an entry."""
        if not any(entry.digest == manifest.digest for entry in self.entries):
            self.entries.append(make_entry("", manifest, config, stored=stored))

    def add_repo_digests(self, digest: str, texts: Sequence[str]) -> None:
        """Note what registries call the image of a manifest, on each of its entries."""
        for number, entry in enumerate(self.entries):
            if entry.digest == digest and not set(texts) <= set(entry.repo_digests):
                self.entries[number] = with_repo_digests(entry, texts)

    def drop(self, entry: Entry, *, keep_image: bool) -> None:
        """Remove an entry; with ``keep_image`` its image keeps one without a name when this was its last."""
        self.entries.remove(entry)
        if keep_image and not any(other.digest == entry.digest for other in self.entries):
            manifest = Descriptor(entry.media_type, entry.digest, entry.size)
            unnamed = make_entry("", manifest, entry.config, stored=entry.stored)
            self.entries.append(with_repo_digests(unnamed, entry.repo_digests))


def make_entry(name: str, manifest: Descriptor, config: str, *, stored: int = 0) -> Entry:
    """A new entry; ``stored`` is now unless given."""
    stored = stored or time.time_ns()
    annotations = {REF_NAME: name} if name else {}
    annotations[STORED] = str(stored)
    if config:
        annotations[CONFIG_DIGEST] = config
    raw = Descriptor(manifest.media_type, manifest.digest, manifest.size, tuple(annotations.items())).to_json()
    return Entry(manifest.digest, manifest.media_type, manifest.size, name, config, stored, raw)


def with_repo_digests(entry: Entry, texts: Sequence[str]) -> Entry:
    """The entry with further names of registries."""
    if not texts:
        return entry
    every = " ".join(dict.fromkeys([*entry.repo_digests, *texts]))
    return entry._replace(raw={**entry.raw, "annotations": {**entry.raw.get("annotations", {}), REPO_DIGESTS: every}})


def read_index(root: DataRoot) -> Index:
    """Read the index. Raises CorruptObjectError when it is missing or damaged, StoreError when it cannot be read.

    A single entry that is no descriptor is passed over, and lost when the index is next written.
    """
    try:
        raw = files.read_json(root.index)
    except FileNotFoundError:
        raise CorruptObjectError(f"the image index {root.index} is missing") from None
    except OSError as error:
        raise StoreError(f"cannot read {root.index}: {error.strerror}", hint=files.hint_for(error)) from error
    manifests = raw.get("manifests")
    if not isinstance(manifests, list):
        raise CorruptObjectError(f"the image index {root.index} has no list of manifests")
    entries = []
    for value in manifests:
        try:
            entries.append(_read_entry(value))
        except CorruptObjectError:
            continue
    return Index(raw, entries)


@contextmanager
def changing(root: DataRoot) -> Iterator[Index]:
    """The index under its lock; written durably at the end of the context, when its entries have changed.

    Raises as ``read_index``; StoreError when it cannot be written.
    """
    with locks.exclusive(root.index_lock):
        index = read_index(root)
        before = list(index.entries)
        yield index
        if index.entries != before:
            _write(root, index, smaller=len(index.entries) < len(before))


def _write(root: DataRoot, index: Index, *, smaller: bool) -> None:
    """On a full disk a removal takes the room of the reserve, since it is what frees some."""
    value = {**index.raw, "manifests": [entry.raw for entry in index.entries]}
    try:
        files.write_json(root.index, value, sync=True, mode=0o644, scratch=root.tmp, lists=True)
    except StoreError as error:
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno in {errno.ENOSPC, errno.EDQUOT}
        if not full or not smaller or not os.path.exists(root.reserve):
            raise
        files.unlink_if_there(root.reserve)
        files.write_json(root.index, value, sync=True, mode=0o644, scratch=root.tmp, lists=True)


def _read_entry(value: object) -> Entry:
    descriptor = Descriptor.from_json(value)
    assert isinstance(value, dict)
    annotations = dict(descriptor.annotations)
    config = annotations.get(CONFIG_DIGEST, "")
    stored = annotations.get(STORED, "")
    return Entry(
        digest=descriptor.digest,
        media_type=descriptor.media_type,
        size=descriptor.size,
        name=_full_name(annotations.get(REF_NAME, "")),
        config=config if is_digest(config) else "",
        stored=int(stored) if stored.isdecimal() and len(stored) < 20 else 0,
        raw=value,
    )


def _full_name(text: str) -> str:
    """Another program may have written a short name."""
    try:
        return parse_reference(text).tagged().full() if text else ""
    except InvalidReferenceError:
        return text
