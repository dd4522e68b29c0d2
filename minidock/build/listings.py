"""What a COPY selected, entry by entry, kept beside the cache for whoever asks later what has changed since.

A listing is what the digest of a selection was taken of, without the contents: those are in the layer that was made.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import CorruptObjectError, StoreError
from minidock.model.digest import is_id
from minidock.store.files import read_file, read_json, write_atomic

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from minidock.build.selection import Selection
    from minidock.build.tree import SourceTree
    from minidock.store.layout import DataRoot

# A listing of some 60,000 files; longer ones are not kept.
_MAX_SIZE = 4 << 20
_HEAD = rb"([0-7]+) (\d+) (\d+) (\d+) (\d+) (\d+)\0([^\0]*)\0([^\0]*)\0"
_XATTR = rb"([^\0]*)\0(\d+) "


class Item(NamedTuple):
    """An entry: ``mode`` is st_mode with its type; ``link`` a symbolic link's target, or of a regular file its path
    where it was listed before; ``xattrs`` the extended attributes as they are written in the listing."""

    mode: int
    uid: int
    gid: int
    size: int
    device: int
    link: str
    xattrs: bytes

    @property
    def has_content(self) -> bool:
        """Whether it is a file whose content is told by no other entry."""
        return stat.S_ISREG(self.mode) and not self.link


class Listing(NamedTuple):
    """A selection whose digest is ``digest``: ``path`` in its source tree, ``contents`` the hexadecimal sha256 of all
    its files' contents one after the other, ``heads`` what ``selection.content_digest`` says of each entry.

    ``tree`` is where it was selected, None for one that was read back.
    """

    digest: str
    path: str
    is_directory: bool
    contents: str
    heads: bytes
    tree: SourceTree | None = None

    @property
    def base(self) -> str:
        """The path in the tree that the entries' paths are relative to."""
        return self.path if self.is_directory else os.path.dirname(self.path)

    def items(self) -> dict[str, Item]:
        """The entries by their paths below ``path``; a single file's is empty."""
        found: dict[str, Item] = {}
        head_pattern, xattr_pattern = re.compile(_HEAD), re.compile(_XATTR)
        at = 0
        while at < len(self.heads):
            head = head_pattern.match(self.heads, at)
            if head is None:
                raise CorruptObjectError(f"the listing of {self.path!r} cannot be read")
            at = start = head.end()
            for _ in range(int(head[6])):
                xattr = xattr_pattern.match(self.heads, at)
                if xattr is None:
                    raise CorruptObjectError(f"the listing of {self.path!r} cannot be read")
                at = xattr.end() + int(xattr[2])
            mode, uid, gid, size, device = int(head[1], 8), *map(int, head.group(2, 3, 4, 5))
            link, xattrs = os.fsdecode(head[8]), self.heads[start:at]
            found[os.fsdecode(head[7])] = Item(mode, uid, gid, size, device, link, xattrs)
        return found


def listing_of(selection: Selection) -> Listing:
    """The listing of a selection whose digest is known."""
    heads = b"".join(selection.heads)
    return Listing(selection.digest, selection.path, selection.is_directory, selection.contents, heads, selection.tree)


def amount(listings: Collection[Listing]) -> tuple[int, int]:
    """How many entries that are no directories listings hold, and the bytes of their contents."""
    files = size = 0
    for listing in listings:
        for item in listing.items().values():
            files += not stat.S_ISDIR(item.mode)
            size += item.size if item.has_content else 0
    return files, size


class Listings:
    """The listings of a data root, one file for each, named by the selection's digest."""

    __slots__ = ("_directory", "_records", "_scratch")

    def __init__(self, root: DataRoot) -> None:
        self._directory = f"{root.cache}/listings"
        self._records = f"{root.cache}/build"
        self._scratch = root.tmp

    def keep(self, listing: Listing) -> None:
        """Write a listing, unless it is there or too long to be kept. It is only ever a help: a disk that is full keeps
        nobody from building."""
        path = f"{self._directory}/{listing.digest}"
        if len(listing.heads) > _MAX_SIZE or os.path.exists(path):
            return
        about = {"path": listing.path, "directory": listing.is_directory, "contents": listing.contents}
        with suppress(StoreError, OSError):
            os.makedirs(self._directory, 0o700, exist_ok=True)
            write_atomic(path, json.dumps(about).encode() + b"\n" + listing.heads, sync=False, scratch=self._scratch)

    def find(self, digest: str) -> Listing | None:
        """The listing of the selection with that digest, None if none was kept."""
        if not is_id(digest):
            return None
        try:
            about, _, heads = read_file(f"{self._directory}/{digest}", limit=2 * _MAX_SIZE).partition(b"\n")
            value: Mapping[str, object] = json.loads(about)
            path, is_directory, contents = value["path"], value["directory"], value["contents"]
        except (OSError, CorruptObjectError, ValueError, KeyError, TypeError):
            return None
        if not isinstance(path, str) or not isinstance(contents, str):
            return None
        return Listing(digest, path, bool(is_directory), contents, heads)

    def collect(self) -> None:
        """Remove the listings that no record of the cache names any more. Raises OSError."""
        try:
            names = {*os.listdir(self._directory)}
            records = os.listdir(self._records)
        except FileNotFoundError:
            return
        for record in records:
            if not names:
                return
            with suppress(OSError, CorruptObjectError):
                inputs = read_json(f"{self._records}/{record}").get("inputs")
                names -= _listed_in(inputs if isinstance(inputs, dict) else {})
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(f"{self._directory}/{name}")


def _listed_in(inputs: Mapping[str, object]) -> set[str]:
    """The digests of selections that the inputs of a record name."""
    found: set[str] = set()
    pending: list[object] = [inputs.get("files"), inputs.get("mounts"), inputs.get("remote")]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.append(value.get("files"))
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str) and len(value) == 64:
            found.add(value)
    return found
