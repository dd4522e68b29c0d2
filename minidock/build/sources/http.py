"""Fetching a file over HTTP into a directory of the build's, through the cache of what was fetched before.

Redirects are followed here and not by the client, so that each hop is looked at: their number is bounded, credentials
go to the host that they were given for and to no other, and none leads from https to http or to another scheme.
"""

from __future__ import annotations

import base64
import hashlib
import os
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.util import Retry, Timeout

from minidock import __version__
from minidock.build.sources.remote import HttpSource, parse_http, redacted
from minidock.errors import MinidockError, StoreError
from minidock.transport.pools import open_pool
from minidock.transport.reasons import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minidock.build.sources.http_cache import HttpCache, HttpRecord

_CONNECT = 30.0
_READ = 60.0
_REDIRECTS = 10
_BLOCK = 1 << 20
_MAX_HEADER = 1024
# Larger than any file that belongs in an image, smaller than most disks.
MAX_SIZE = 64 << 30
_MAX_TIME = (1 << 34) - 1
_EVERY = 16 << 20
_MOVED = frozenset({301, 302, 303, 307, 308})


class Fetched(NamedTuple):
    """A file that was fetched: where it lies (mode 0600), the digest of its content, its size in bytes; its mtime is
    what the server says (Last-Modified), else the epoch."""

    path: str
    digest: str
    size: int


def fetch(
    source: HttpSource,
    path: str,
    *,
    cache: HttpCache,
    tell: Callable[[bytes], None],
    limit: int = MAX_SIZE,
) -> Fetched:
    """Fetch ``source`` as the new file ``path``. What the cache has and the server says is the same is not fetched
    again. ``tell`` gets lines for people.

    Raises MinidockError for whatever keeps it from being fetched whole, OSError of the file.
    """
    known = cache.find(source.url)
    while True:
        with _get(source, known) as response:
            if known is None or not _is_same(response, known):
                return _store(source, response, path, cache=cache, tell=tell, limit=limit)
            if cache.link(known, path):
                tell(b"unchanged since it was fetched last\n")
                return Fetched(path, known.digest, known.size)
        # The body went meanwhile: ask without a condition.
        known = None


def _store(
    source: HttpSource,
    response: urllib3.BaseHTTPResponse,
    path: str,
    *,
    cache: HttpCache,
    tell: Callable[[bytes], None],
    limit: int,
) -> Fetched:
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() and len(length) < 19 else 0
    hasher, size, told = hashlib.sha256(), 0, 0
    with open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
        while data := response.read(_BLOCK, decode_content=False) if max(total, size) <= limit else b"":
            hasher.update(data)
            view = memoryview(data)
            while view:
                view = view[out.write(view) :]
            size += len(data)
            if size - told >= _EVERY:
                told = size
                tell(f"{size >> 20} MiB{f' of {total >> 20}' if total else ''}\n".encode())
    if max(total, size) > limit:
        raise MinidockError(f"cannot fetch {source.shown}: it has more than the {limit} bytes allowed")
    headers = {name: response.headers.get(name, "") for name in ("ETag", "Last-Modified")}
    etag, last_modified = (value if len(value) <= _MAX_HEADER else "" for value in headers.values())
    mtime = _time(last_modified)
    os.utime(path, ns=(mtime * 10**9, mtime * 10**9))
    digest = f"sha256:{hasher.hexdigest()}"
    # What cannot be asked for again by its version is not kept.
    if etag or last_modified:
        # Neither is a full disk a reason to fail now.
        with suppress(OSError, StoreError):
            cache.save(source.url, path, digest=digest, mtime=mtime, etag=etag, last_modified=last_modified)
    return Fetched(path, digest, size)


def _is_same(response: urllib3.BaseHTTPResponse, known: HttpRecord) -> bool:
    """Whether the answer says that the body is the known one: also a server that ignores the question's condition
    says so by the same ETag."""
    return response.status == 304 or (known.etag != "" and response.headers.get("ETag") == known.etag)


def _time(text: str) -> int:
    try:
        return min(max(int(parsedate_to_datetime(text).timestamp()), 0), _MAX_TIME)
    except (ValueError, TypeError, OverflowError):
        return 0


@contextmanager
def _get(source: HttpSource, known: HttpRecord | None) -> Iterator[urllib3.BaseHTTPResponse]:
    """The last answer of a chain of redirects: 200, or 304 where ``known`` is given."""
    # Compressed in passing, the content would be another one, and its size unknown.
    headers = {"User-Agent": f"minidock/{__version__}", "Accept-Encoding": "identity"}
    if known is not None and known.etag:
        headers["If-None-Match"] = known.etag
    elif known is not None:
        headers["If-Modified-Since"] = known.last_modified
    place = source
    for _ in range(_REDIRECTS + 1):
        with _explained(source), _client(place.url) as client:
            response = client.request(
                "GET",
                place.url,
                headers={**headers, **_authorization(source, place)},
                redirect=False,
                preload_content=False,
                retries=Retry(2, read=0, redirect=0, status=0, other=0, backoff_factor=0.2),
                timeout=Timeout(connect=_CONNECT, read=_READ),
            )
            if response.status not in _MOVED:
                if response.status != 200 and not (known is not None and response.status == 304):
                    reason = " ".join(part for part in (str(response.status), response.reason or "") if part)
                    raise MinidockError(f"cannot fetch {source.shown}: the server answers {reason}")
                yield response
                return
            place = _redirected(source, place, response.headers.get("Location", ""))
    raise MinidockError(f"cannot fetch {source.shown}: there are more than {_REDIRECTS} redirects")


def _redirected(source: HttpSource, place: HttpSource, location: str) -> HttpSource:
    try:
        found = parse_http(urljoin(place.url, location)) if location else None
    except (MinidockError, ValueError):
        found = None
    if found is None:
        raise MinidockError(f"cannot fetch {source.shown}: the server redirects to {redacted(location)[:200]!r}")
    if place.url.startswith("https:") and not found.url.startswith("https:"):
        raise MinidockError(f"cannot fetch {source.shown}: the server redirects from https to {found.url}")
    return found


def _authorization(source: HttpSource, place: HttpSource) -> dict[str, str]:
    """The credentials, for the very place that they were given for."""
    if source.credentials is None or _origin(source.url) != _origin(place.url):
        return {}
    user, password = source.credentials
    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


@contextmanager
def _client(url: str) -> Iterator[urllib3.PoolManager]:
    """A client for one host."""
    client = open_pool(url)
    try:
        yield client
    finally:
        client.clear()


@contextmanager
def _explained(source: HttpSource) -> Iterator[None]:
    try:
        yield
    except (urllib3.exceptions.HTTPError, UnicodeError) as error:
        raise MinidockError(f"cannot fetch {source.shown}: {reason_of(error, connect=_CONNECT, read=_READ)}") from error
