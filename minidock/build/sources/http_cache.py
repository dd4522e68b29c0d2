"""What was fetched over HTTP, kept so that it is not fetched again while it has not changed: ``cache/http/``.

Each URL has a record, ``<key>.json``, where ``key`` is the digest of the URL, and a body, ``<key>.<its digest>``. A
record is written after its body, which is on disk by then: what a killed writer leaves is at most a body that no
record names, and that is removed with the next look. Bodies are never changed; a build links them to its own staging.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import CorruptObjectError
from minidock.model.digest import digest_of, hex_of, is_digest
from minidock.store.files import read_json, remove_tree, unlink_if_there, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minidock.store.layout import DataRoot

MAX_BYTES = 4 << 30
_NAME = re.compile(r"[0-9a-f]{64}\.(?:json|[0-9a-f]{64})")
# A body whose record is about to be written is younger than this.
_GRACE = 600


class HttpRecord(NamedTuple):
    """A body: its digest, size in bytes and mtime (whole seconds, 0 if the server said nothing), what the server calls
    its version (``etag``, ``last_modified``: header values, perhaps empty), and when it was last used (seconds since
    the epoch). ``url`` is for people, without its query."""

    key: str
    url: str
    digest: str
    size: int
    mtime: int
    etag: str
    last_modified: str
    used: float


class HttpCache:
    """The kept bodies of a data root, at most ``limit`` bytes in all."""

    __slots__ = ("_directory", "_limit", "_scratch")

    def __init__(self, root: DataRoot, *, limit: int = MAX_BYTES) -> None:
        self._directory = f"{root.cache}/http"
        self._scratch = root.tmp
        self._limit = limit

    def find(self, url: str) -> HttpRecord | None:
        """The record of an URL, None if there is none, it is damaged or its body is gone."""
        record = self._read(_key(url))
        return record if record and self._is_whole(record) else None

    def link(self, record: HttpRecord, path: str) -> bool:
        """Give the body another name, ``path``, on the same file system; False if it was removed meanwhile."""
        try:
            os.link(self._body(record), path)
            os.utime(f"{self._directory}/{record.key}.json")
        except FileNotFoundError:
            return False
        return True

    def save(self, url: str, path: str, *, digest: str, mtime: int, etag: str, last_modified: str) -> None:
        """Keep the file ``path``, which is whole and does not change any more, as the body of an URL.

        What was used least recently goes where there is no more room. Raises OSError, StoreError.
        """
        size = os.stat(path).st_size
        if size > self._limit:
            return
        os.makedirs(self._directory, 0o700, exist_ok=True)
        with open(path, "rb") as file:
            os.fdatasync(file.fileno())
        now = time.time()
        shown = url.partition("?")[0]
        record = HttpRecord(_key(url), shown, digest, size, mtime, etag, last_modified, now)
        old = self._read(record.key)
        unlink_if_there(self._body(record))
        os.link(path, self._body(record))
        value = {name: value for name, value in record._asdict().items() if name not in ("key", "used")}
        write_json(f"{self._directory}/{record.key}.json", value, sync=False, scratch=self._scratch)
        if old is not None and old.digest != digest:
            unlink_if_there(self._body(old))
        self._make_room()

    def entries(self) -> list[HttpRecord]:
        """All records, the least recently used first; what belongs to none is removed. Raises OSError."""
        records: dict[str, HttpRecord] = {}
        others: list[str] = []
        for name in self._names():
            key, _, rest = name.partition(".")
            if rest == "json":
                record = self._read(key)
                if record is not None and self._is_whole(record):
                    records[key] = record
                    continue
            others.append(name)
        for name in others:
            key, _, digits = name.partition(".")
            if key not in records or hex_of(records[key].digest) != digits:
                self._remove_stray(name)
        return sorted(records.values(), key=lambda record: record.used)

    def remove(self, key: str) -> int:
        """Forget the entry of that key; the bytes that were freed. One that is gone already is fine. Raises OSError."""
        record = self._read(key)
        unlink_if_there(f"{self._directory}/{key}.json")
        if record is None:
            return 0
        unlink_if_there(self._body(record))
        return record.size

    def _make_room(self) -> None:
        entries = self.entries()
        total = sum(record.size for record in entries)
        for record in entries:
            if total <= self._limit:
                return
            total -= self.remove(record.key)

    def _names(self) -> Iterator[str]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return
        for name in names:
            if _NAME.fullmatch(name):
                yield name
            else:
                remove_tree(f"{self._directory}/{name}")

    def _remove_stray(self, name: str) -> None:
        path = f"{self._directory}/{name}"
        try:
            # The time of the link, not of the content.
            if name.endswith(".json") or time.time() - os.lstat(path).st_ctime > _GRACE:
                unlink_if_there(path)
        except FileNotFoundError:
            return

    def _read(self, key: str) -> HttpRecord | None:
        path = f"{self._directory}/{key}.json"
        try:
            value = read_json(path)
            used = os.stat(path).st_mtime
        except (FileNotFoundError, CorruptObjectError):
            return None
        texts = [value.get(name) for name in ("url", "digest", "etag", "last_modified")]
        numbers = [value.get(name) for name in ("size", "mtime")]
        if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
            return None
        if not is_digest(texts[1] or ""):
            return None
        url, digest, etag, last_modified = (str(text) for text in texts)
        return HttpRecord(key, url, digest, int(numbers[0] or 0), int(numbers[1] or 0), etag, last_modified, used)

    def _is_whole(self, record: HttpRecord) -> bool:
        try:
            return os.lstat(self._body(record)).st_size == record.size
        except FileNotFoundError:
            return False

    def _body(self, record: HttpRecord) -> str:
        return f"{self._directory}/{record.key}.{hex_of(record.digest)}"


def _key(url: str) -> str:
    return hex_of(digest_of(url.encode()))
