"""Which files differ between what a COPY selects and what it selected before.

Names, modes, owners and sizes of then are in the listing that was kept; the contents are in the layer that was made.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.listings import listing_of
from minidock.build.selection import join
from minidock.build.tree import open_real
from minidock.errors import CorruptObjectError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from minidock.build.listings import Item, Listing, Listings
    from minidock.build.selection import Selection
    from minidock.store.blobs import Blobs

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 1 << 20
# Bytes of contents that are compared to tell files of one size apart.
_MOST = 256 << 20
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "named pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


class Source(NamedTuple):
    """One source as a key has it: its base name, whether it is a directory, the digest of what it selects."""

    name: str
    is_directory: bool
    digest: str


class Layer:
    """The contents of the files of a layer, read from its tarball. ``destination`` is where the sources went."""

    __slots__ = ("_destination", "_members", "_path")

    def __init__(self, blobs: Blobs, diff_id: str | None, destination: str) -> None:
        self._path = blobs.path(diff_id) if diff_id else ""
        self._destination = destination.strip("/")
        self._members: dict[str, tuple[int, int]] | None = None

    def digest(self, path: str, size: int) -> str | None:
        """The hexadecimal sha256 of a file, by its path below the destination; None if the layer has it not."""
        members = self._read()
        whole = join(self._destination, path)
        names = [whole] if whole in members else [name for name in members if name.endswith(f"/{path}")]
        if len(names) != 1 or members[names[0]][1] != size:
            return None
        try:
            fd = os.open(self._path, _FLAGS)
        except OSError:
            return None
        try:
            os.lseek(fd, members[names[0]][0], os.SEEK_SET)
            return _digest(fd, size)
        finally:
            os.close(fd)

    def _read(self) -> dict[str, tuple[int, int]]:
        """Where each file's content lies in the tarball, and how long it is."""
        if self._members is None:
            self._members = {}
            if not self._path:
                return self._members
            try:
                with tarfile.open(self._path, "r:") as tar:
                    for member in tar:
                        if member.isreg() and not member.issparse():
                            self._members[member.name.removeprefix("./")] = (member.offset_data, member.size)
            except (OSError, tarfile.TarError):
                self._members = {}
        return self._members


def changes(
    old: Sequence[Source], new: Sequence[Source], *, copied: Iterable[Selection], listings: Listings, layer: Layer
) -> Iterator[str]:
    """What differs, each as a phrase. ``copied`` are the selections of ``new``, open still."""
    selections = {selection.digest: selection for selection in copied}
    before = _by_name(old)
    for key, source in _by_name(new).items():
        was = before.pop(key, None)
        if was is None:
            yield f"the source {source.name} is new"
        elif was.digest != source.digest:
            selection, listing = selections.get(source.digest), listings.find(was.digest)
            if selection is None or listing is None:
                yield f"the files of {source.name or 'the source'} changed"
            else:
                yield from _between(listing, listing_of(selection), layer)
    for source in before.values():
        yield f"the source {source.name} is gone"


def _by_name(sources: Sequence[Source]) -> dict[tuple[str, int], Source]:
    """Sources by their names; of several that are called the same, by their order, too."""
    found: dict[tuple[str, int], Source] = {}
    for source in sources:
        count = 0
        while (source.name, count) in found:
            count += 1
        found[source.name, count] = source
    return found


def _between(old: Listing, new: Listing, layer: Layer) -> Iterator[str]:
    """What differs between two listings of the same source, whose digests differ."""
    try:
        before = old.items()
    except CorruptObjectError:
        yield f"the files of {new.path or 'the source'} changed"
        return
    now = new.items()
    found = False
    contents: list[tuple[str, Item, Item]] = []
    for path in sorted({*before, *now}, key=os.fsencode):
        was, item = before.get(path), now.get(path)
        shown = join(new.path, path)
        if was is None or item is None:
            word = _kind((was or item or now[path]).mode)
            yield f"{word} {shown} is {'gone' if item is None else 'new'}"
            found = True
            continue
        for phrase in _of_item(shown, was, item):
            yield phrase
            found = True
        if was.has_content and item.has_content:
            contents.append((path, was, item))
    if old.contents != new.contents:
        for phrase in _of_contents(old, new, contents, layer, guess=not found):
            yield phrase
            found = True
    if not found:
        yield f"the files of {new.path or 'the source'} changed"


def _of_item(shown: str, was: Item, item: Item) -> Iterator[str]:
    """What differs between two entries of one path, but for their contents."""
    if stat.S_IFMT(was.mode) != stat.S_IFMT(item.mode):
        yield f"{shown} was a {_kind(was.mode)}, is a {_kind(item.mode)}"
        return
    word = _kind(item.mode)
    if was.mode != item.mode:
        yield f"the mode of {word} {shown} was {was.mode & 0o7777:04o}, is {item.mode & 0o7777:04o}"
    if (was.uid, was.gid) != (item.uid, item.gid):
        yield f"the owner of {word} {shown} was {was.uid}:{was.gid}, is {item.uid}:{item.gid}"
    if was.link != item.link:
        if stat.S_ISLNK(item.mode):
            yield f"link {shown} led to {was.link}, leads to {item.link}"
        else:
            yield f"the hard links of file {shown} changed"
    if was.device != item.device:
        yield f"device {shown} changed"
    if was.xattrs != item.xattrs:
        yield f"the extended attributes of {word} {shown} changed"


def _of_contents(
    old: Listing, new: Listing, pairs: Sequence[tuple[str, Item, Item]], layer: Layer, *, guess: bool
) -> Iterator[str]:
    """Which of the files in both listings differ in their contents: those of another size do, for the others the
    contents are compared. Where that cannot be done, ``guess`` says that one of them does."""
    if not new.is_directory:
        for path, _, _ in pairs:
            yield _changed(join(new.path, path), old.contents, new.contents)
        return
    budget = _MOST
    unknown: list[str] = []
    found = False
    for path, was, item in pairs:
        shown = join(new.path, path)
        if was.size + item.size > budget:
            then = now = None
        else:
            budget -= was.size + item.size
            then, now = layer.digest(path, was.size), _current(new, path, item.size)
        if then is not None and now is not None:
            if then != now:
                found = True
                yield _changed(shown, then, now)
        elif was.size != item.size:
            found = True
            yield f"file {shown} had {was.size} bytes, has {item.size}"
        else:
            unknown.append(shown)
    if unknown and guess and not found:
        yield (
            f"file {unknown[0]} changed"
            if len(unknown) == 1
            else f"one of {len(unknown)} files changed: {unknown[0]} …"
        )


def _changed(shown: str, then: str, now: str) -> str:
    return f"file {shown} was {short(then)}, is {short(now)}"


def short(digest: str) -> str:
    """A digest as a person reads it: ``sha256:`` and 12 digits."""
    return f"sha256:{digest.removeprefix('sha256:')[:12]}"


def _current(listing: Listing, path: str, size: int) -> str | None:
    """The hexadecimal sha256 of a file as it is now."""
    assert listing.tree is not None, "it was selected just now"
    try:
        fd = open_real(listing.tree.fd, join(listing.base, path), _FLAGS)
    except OSError:
        return None
    try:
        return _digest(fd, size) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _digest(fd: int, size: int) -> str | None:
    """The sha256 of the next ``size`` bytes, None if there are fewer."""
    found = hashlib.sha256()
    while size and (piece := os.read(fd, min(size, _BLOCK))):
        found.update(piece)
        size -= len(piece)
    return None if size else found.hexdigest()


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "entry")
