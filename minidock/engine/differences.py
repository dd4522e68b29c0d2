"""Where two builds of the same thing differ: the first step, path and field, in words."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.drivers.tar_format import DIRECTORY, MAX_NAME, Entry
from minidock.drivers.tar_reader import TarReader
from minidock.model.dating import LATEST, to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minidock.build.export import Finished
    from minidock.store.blobs import Blobs

_KINDS = {
    b"0": "a file",
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a FIFO",
}
TIME = "mtime"
_EMPTY = "nothing"


class Difference(NamedTuple):
    """What differs: ``step`` is the line of the history, empty for the configuration; ``path`` is absolute, or a key of
    the configuration; ``first`` and ``second`` are the values of ``field`` in words."""

    step: str
    path: str
    field: str
    first: str
    second: str


class Layer(NamedTuple):
    """A line of a history that says what was made, and the layer that it made, None for no difference."""

    step: str
    diff_id: str | None


def find_difference(first: Finished, second: Finished, blobs: tuple[Blobs, Blobs]) -> Difference | None:
    """The first difference of two builds, whose layers are among their blobs: layer by layer, lowest first, then in the
    configuration; None if they are equal. Raises CorruptObjectError, ArchiveError, OSError."""
    for one, other in zip(_layers(first), _layers(second), strict=False):
        if one.step != other.step:
            return Difference("", "history", "created_by", one.step, other.step)
        if one.diff_id != other.diff_id:
            return _in_layers(one, other, blobs)
    return _in_values(first.config.raw, second.config.raw, "")


def _layers(finished: Finished) -> Iterator[Layer]:
    left = iter(finished.config.diff_ids)
    for line in finished.config.history:
        yield Layer(line.created_by, None if line.empty_layer else next(left, None))


def _in_layers(one: Layer, other: Layer, blobs: tuple[Blobs, Blobs]) -> Difference:
    """What is told first is what matters most: a time only where nothing else differs, a directory's only where no
    file's does, and of directories the innermost, since whatever is put into a directory changes that."""
    olds, news = _Entries(one.diff_id, blobs[0]), _Entries(other.diff_id, blobs[1])
    times: list[Difference] = []
    for path in dict.fromkeys((*olds.entries, *news.entries)):
        old, new = olds.entries.get(path), news.entries.get(path)
        if old is None or new is None:
            kinds = [_KINDS[entry.type] if entry else "nothing" for entry in (old, new)]
            return Difference(one.step, f"/{path}", "existence", *kinds)
        for field, left, right in _fields(old, new, olds, news):
            if left == right:
                continue
            found = Difference(one.step, f"/{path}", field, left, right)
            if field != TIME:
                return found
            times.append(found)
    # Two tars of different bytes may still say the same; then it is the order of their entries.
    other_order = Difference(one.step, "/", "order of entries", str(one.diff_id), str(other.diff_id))
    return min(times, key=lambda found: _outermost(found, olds)) if times else other_order


def _outermost(found: Difference, entries: _Entries) -> int:
    """Grows from files to directories, and among these towards the root."""
    path = found.path[1:]
    return -MAX_NAME if entries.entries[path].type != DIRECTORY else -len(path)


def _fields(old: Entry, new: Entry, olds: _Entries, news: _Entries) -> Iterator[tuple[str, str, str]]:
    yield "type", _KINDS[old.type], _KINDS[new.type]
    yield "content", olds.contents.get(old.name, _EMPTY), news.contents.get(new.name, _EMPTY)
    yield "target", old.linkname, new.linkname
    yield "mode", f"{old.mode:04o}", f"{new.mode:04o}"
    yield "owner", f"{old.uid}:{old.gid}", f"{new.uid}:{new.gid}"
    yield "device", f"{old.major}:{old.minor}", f"{new.major}:{new.minor}"
    yield "extended attributes", _shown(old), _shown(new)
    yield TIME, _moment(old.mtime), _moment(new.mtime)


def _moment(mtime: int) -> str:
    return to_rfc3339(mtime) if 0 <= mtime <= LATEST else f"{mtime} s after 1970"


def _shown(entry: Entry) -> str:
    return ", ".join(f"{name}={value.hex()}" for name, value in sorted(entry.xattrs.items())) or "none"


class _Entries:
    """What the tar of a layer holds, by path, and the digests of its files' contents."""

    __slots__ = ("contents", "entries")

    def __init__(self, diff_id: str | None, blobs: Blobs) -> None:
        self.entries: dict[str, Entry] = {}
        self.contents: dict[str, str] = {}
        if diff_id is None:
            return
        with blobs.open(diff_id) as tar:
            reader = TarReader(tar)
            for entry in reader:
                self.entries[entry.name] = entry
                if entry.size:
                    hasher = hashlib.sha256()
                    for block in reader.data():
                        hasher.update(block)
                    self.contents[entry.name] = f"sha256:{hasher.hexdigest()}"


def _in_values(one: Any, other: Any, key: str) -> Difference | None:
    """The first difference of two values of JSON; ``key`` is what leads to them."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*one, *other)):
            found = _in_values(one.get(name), other.get(name), f"{key}.{name}" if key else name)
            if found is not None:
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((found for n, (a, b) in pairs if (found := _in_values(a, b, f"{key}[{n}]"))), None)
    return None if one == other else Difference("", key, "value", repr(one), repr(other))
