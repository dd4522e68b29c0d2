"""One repository on one server: manifests, tags and blobs as the OCI distribution-spec 1.1 has them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import RegistryError
from minidock.model.digest import digest_of, is_digest
from minidock.model.oci import DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST, Descriptor
from minidock.registry.answers import decode, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from minidock.registry.session import Answered, Session

MAX_MANIFEST = 4 << 20
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_ACCEPT = ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX))
_MAX_PAGES = 200
_PAGE = 1000
_MAX_TAGS = 100_000
_MAX_LINK = 4096
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NEXT = re.compile(r"<([^>]+)>\s*;.*\brel\s*=\s*\"?next\b")


class Served(NamedTuple):
    """A manifest or index as the server gave it, verbatim."""

    descriptor: Descriptor
    data: bytes

    @property
    def is_index(self) -> bool:
        return self.descriptor.media_type in (INDEX, DOCKER_INDEX)


class Repository:
    """``name`` is what people call it (``HOST/PATH``); ``path`` is its path on the server of ``session``."""

    __slots__ = ("name", "path", "session")

    def __init__(self, session: Session, name: str, path: str) -> None:
        self.session = session
        self.name = name
        self.path = path

    def manifest(self, reference: str) -> Served:
        """The manifest or index of a tag or digest.

        Raises RegistryError where there is none, where it is of a form that is not read, and where it is not what the
        digest says.
        """
        mark = "@" if is_digest(reference) else ":"
        what = f"pull {self.name}{mark}{reference}"
        path = f"{self.path}/manifests/{reference}"
        with self.session.request("GET", path, what=what, headers={"Accept": _ACCEPT}) as (response, _):
            data = read_all(response, limit=MAX_MANIFEST, what=f"cannot {what}: the manifest")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            claimed = response.headers.get("Docker-Content-Digest", "")
        digest = digest_of(data)
        for wanted in (reference if mark == "@" else "", claimed):
            if wanted and wanted != digest:
                raise RegistryError(f"cannot {what}: the manifest is not what its digest says")
        value = decode(data, what=f"cannot {what}: the manifest")
        media_type = _media_type(value, media_type, what)
        return Served(Descriptor(media_type, digest, len(data)), data)

    def tags(self) -> list[str]:
        """Every tag of the repository, in the server's order. Raises RegistryError."""
        found: dict[str, None] = {}
        what = f"list the tags of {self.name}"
        path = f"{self.path}/tags/list?n={_PAGE}"
        for _ in range(_MAX_PAGES):
            with self.session.request("GET", path, what=what) as (response, _):
                data = read_all(response, limit=MAX_MANIFEST, what=f"cannot {what}: the answer")
                more = _NEXT.search(response.headers.get("Link", "")[:_MAX_LINK])
            value = decode(data, what=f"cannot {what}: the answer")
            tags = value.get("tags") if isinstance(value, dict) else None
            for tag in tags if isinstance(tags, list) else []:
                # A tag becomes part of a path and of a name.
                if not isinstance(tag, str) or not _TAG.fullmatch(tag):
                    raise RegistryError(f"cannot {what}: {str(tag)[:100]!r} is none")
                found[tag] = None
            if len(found) > _MAX_TAGS:
                raise RegistryError(f"cannot {what}: there are more than {_MAX_TAGS}")
            query = more[1].partition("?")[2] if more else ""
            if not query:
                return list(found)
            path = f"{self.path}/tags/list?{query}"
        raise RegistryError(f"cannot {what}: the list does not end")

    def blob(self, descriptor: Descriptor, *, start: int = 0) -> AbstractContextManager[Answered]:
        """A blob's bytes from ``start`` on; the answer's status is 206 where the server begins where it says, 416 where
        it has nothing there, else 200: then it begins at the beginning."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        what = f"pull {self.name}"
        path = f"{self.path}/blobs/{descriptor.digest}"
        return self.session.request(
            "GET", path, what=what, headers=headers, expect=(200, 206, 416) if start else (200,)
        )

    def small_blob(self, descriptor: Descriptor, *, what: str) -> bytes:
        """A blob of at most 4 MiB, checked against its digest and size. Raises RegistryError."""
        if descriptor.size > MAX_MANIFEST:
            raise RegistryError(f"cannot pull {self.name}: {what} has more than the {MAX_MANIFEST} bytes allowed")
        with self.blob(descriptor) as (response, _):
            data = read_all(response, limit=descriptor.size, what=f"cannot pull {self.name}: {what}")
        if len(data) != descriptor.size or digest_of(data) != descriptor.digest:
            raise RegistryError(f"cannot pull {self.name}: {what} is not what its digest says")
        return data


def descriptors(index: Served) -> Iterator[tuple[Descriptor, dict[str, Any]]]:
    """The entries of an index, each with its ``platform``, {} where it has none. Raises CorruptObjectError."""
    value = decode(index.data, what="the image index")
    for entry in value["manifests"]:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        yield Descriptor.from_json(entry), platform if isinstance(platform, dict) else {}


def _media_type(value: object, said: str, what: str) -> str:
    """What kind of manifest it is, which its own words decide before the server's (CVE-2021-41190)."""
    if not isinstance(value, dict):
        raise RegistryError(f"cannot {what}: the manifest is not a JSON object")
    if value.get("schemaVersion") == 1 or said.startswith(_SCHEMA_1):
        raise RegistryError(
            f"cannot {what}: it is an image of docker's schema 1, which nobody writes any more",
            hint="push it anew with a tool of after 2017",
        )
    manifests, layers = isinstance(value.get("manifests"), list), "layers" in value or "config" in value
    if value.get("schemaVersion") != 2 or manifests == layers or "fsLayers" in value:
        raise RegistryError(f"cannot {what}: the manifest is neither one of an image nor an index")
    own = value.get("mediaType") or said
    known = (INDEX, DOCKER_INDEX) if manifests else (MANIFEST, DOCKER_MANIFEST)
    if own in known:
        return str(own)
    if value.get("mediaType"):
        raise RegistryError(f"cannot {what}: it is no image, but {str(own)[:200]!r}")
    return known[0]
