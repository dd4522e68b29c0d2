"""Records of steps that were built before, for whoever compares a step with them.

They are read once, when a step that missed the cache is first asked about; a build that is all cached reads none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import CorruptObjectError
from minidock.model.digest import hex_of
from minidock.store.files import read_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from minidock.build.cache import Key
    from minidock.store.layout import DataRoot

_SUFFIX = ".json"
# An ADD may have been a COPY before.
_COPIES = ("COPY", "ADD")


class Precedent(NamedTuple):
    """A record: the digits of its key, its layer, what decided the result, what else was known of the step, and when it
    was last used, in nanoseconds since the epoch."""

    key: str
    diff_id: str | None
    inputs: Mapping[str, Any]
    about: Mapping[str, Any]
    used: int


class Precedents:
    """The records of a data root as they are when they are first asked for."""

    __slots__ = ("_by_key", "_directory")

    def __init__(self, root: DataRoot) -> None:
        self._directory = f"{root.cache}/build"
        self._by_key: dict[str, Precedent] | None = None

    def get(self, digest: str) -> Precedent | None:
        """The record of the key with that digest."""
        return self._all().get(hex_of(digest)) if digest else None

    def nearest(self, key: Key, titles: Collection[str]) -> Precedent | None:
        """The record of what was at this step's place, or was written like it, the last time: of several the most
        alike, of these the one that was used last. None where nothing like it was built before.

        What stood at its place counts for it, unless ``titles``, those of the stage's steps of now, say that it only
        moved.
        """
        best: tuple[Any, ...] = ()
        found = None
        for record in self._all().values():
            rank = _rank(record, key, titles)
            if rank is not None and rank > best:
                best, found = rank, record
        return found

    def has_like(self, inputs: Mapping[str, Any], apart: Collection[str]) -> bool:
        """Whether a step with these inputs was built, those called as ``apart`` says left out."""
        return any(is_like(record.inputs, inputs, apart) for record in self._all().values())

    def context_layer(self, digest: str) -> str | None:
        """The layer that was made of the part of a context whose files have that digest."""
        for record in self._all().values():
            if record.inputs.get("instruction") == "CONTEXT" and record.inputs.get("files") == digest:
                return record.diff_id
        return None

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, Precedent]:
        if self._by_key is None:
            self._by_key = {record.key: record for record in _used_together([*self._read()])}
        return self._by_key

    def _read(self) -> Iterable[Precedent]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return
        for name in names:
            path = f"{self._directory}/{name}"
            try:
                value, used = read_json(path), os.stat(path).st_mtime_ns
            except (OSError, CorruptObjectError):
                continue
            inputs, about, diff_id = value.get("inputs"), value.get("about"), value.get("diff_id")
            if isinstance(inputs, dict) and name.endswith(_SUFFIX):
                diff_id = diff_id if isinstance(diff_id, str) else None
                about = about if isinstance(about, dict) else {}
                yield Precedent(name.removesuffix(_SUFFIX), diff_id, inputs, about, used)


def _used_together(records: Collection[Precedent]) -> Iterable[Precedent]:
    """The records, those of one step used when the latest of them was: a step that is found by its first key leaves its
    others untouched."""
    latest: dict[tuple[str, ...], int] = {}
    for record in records:
        step = _step(record)
        latest[step] = max(latest.get(step, 0), record.used)
    return (record._replace(used=latest[_step(record)]) for record in records)


def _step(record: Precedent) -> tuple[str, ...]:
    """What records have in common that were made by one step."""
    return repr(sorted(record.about.items())), record.diff_id or record.key


def is_like(inputs: Mapping[str, Any], others: Mapping[str, Any], apart: Collection[str]) -> bool:
    """Whether two steps have the same inputs, those called as ``apart`` says left out."""
    if inputs.get("instruction") != others.get("instruction"):
        return False
    return all(inputs.get(name) == others.get(name) for name in {*inputs, *others}.difference(apart))


def _rank(record: Precedent, key: Key, titles: Collection[str]) -> tuple[Any, ...] | None:
    """How near a record is to a step; None for what is nothing like it."""
    inputs, about = key.inputs, key.about
    word, other = inputs.get("instruction"), record.inputs.get("instruction")
    if word != other and not (word in _COPIES and other in _COPIES):
        return None
    project, stage, number, title = (
        record.about.get(name, "") == about.get(name) for name in ("project", "stage", "number", "title")
    )
    if not title and not (project and stage and number):
        return None
    if project and not title and record.about.get("title") in titles:
        return None
    names = {*inputs, *record.inputs}
    differing = sum(inputs.get(name) != record.inputs.get(name) for name in names)
    return project, title, stage, number, -differing, record.used
