"""Sending to a repository: blobs and manifests (OCI distribution-spec 1.1, "Push")."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from minidock.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from minidock.model.oci import Descriptor
    from minidock.registry.repository import Repository
    from minidock.registry.session import Answered

# Larger blobs go in pieces: what stands before a registry often takes no larger bodies, and less is sent again.
_WHOLE = 64 << 20
_PIECE = 32 << 20
_BLOCK = 1 << 18
_OCTETS = "application/octet-stream"


class Upload:
    """Sends to one repository."""

    __slots__ = ("_repository", "_what")

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._what = f"push to {repository.name}"

    def has(self, digest: str) -> bool:
        """Whether the repository has a blob. Raises RegistryError."""
        path = f"{self._repository.path}/blobs/{digest}"
        with self._repository.session.request("HEAD", path, what=self._what, expect=(200, 404)) as answered:
            return answered.response.status == 200

    def mount(self, digest: str, source: str) -> bool:
        """Have a blob that another repository of the server holds, at the path ``source``; whether that came about."""
        path = f"{self._repository.path}/blobs/uploads/?mount={digest}&from={quote(source, safe='')}"
        session = self._repository.session
        try:
            with session.request("POST", path, what=self._what, body=b"", expect=(201, 202)) as answered:
                mounted = answered.response.status == 201
                location = "" if mounted else self._location(answered)
        except RegistryError:
            # Being allowed to send here does not say that one may read there.
            return False
        if location:
            self._cancel(location)
        return mounted

    def send(self, blob: Descriptor, opened: Callable[[], BinaryIO], tell: Callable[[int], None]) -> None:
        """Send a blob; ``opened`` opens its content anew for each try; ``tell`` gets the bytes so far.

        Raises RegistryError, OSError of the content.
        """
        failures = 0
        while True:
            try:
                if blob.size > _WHOLE:
                    self._send_pieces(blob, opened, tell)
                else:
                    self._send_whole(blob, opened, tell)
                return
            except RegistryError:
                failures += 1
                if failures == 2 or not self._may_go_on():
                    raise

    def put_manifest(self, data: bytes, media_type: str, reference: str) -> None:
        """Give the repository a manifest under a tag or its digest. Raises RegistryError."""
        path = f"{self._repository.path}/manifests/{reference}"
        headers = {"Content-Type": media_type}
        with self._repository.session.request(
            "PUT", path, what=self._what, headers=headers, body=data, expect=(200, 201, 202)
        ):
            pass

    def _may_go_on(self) -> bool:
        """Whether the server answers at all."""
        try:
            path = f"{self._repository.path}/tags/list?n=1"
            with self._repository.session.request("GET", path, what=self._what, expect=(200, 404)):
                return True
        except RegistryError:
            return False

    def _begin(self) -> str:
        path = f"{self._repository.path}/blobs/uploads/"
        with self._repository.session.request("POST", path, what=self._what, body=b"", expect=(202,)) as answered:
            return self._location(answered)

    def _send_whole(self, blob: Descriptor, opened: Callable[[], BinaryIO], tell: Callable[[int], None]) -> None:
        location = self._begin()
        with self._stream(opened, 0, blob.size, tell) as body:
            self._finish(location, blob, body, blob.size)

    def _send_pieces(self, blob: Descriptor, opened: Callable[[], BinaryIO], tell: Callable[[int], None]) -> None:
        location, start = self._begin(), 0
        while start < blob.size:
            length = min(_PIECE, blob.size - start)
            headers = {
                "Content-Type": _OCTETS,
                "Content-Length": str(length),
                "Content-Range": f"{start}-{start + length - 1}",
            }
            with (
                self._stream(opened, start, length, tell) as body,
                self._repository.session.request(
                    "PATCH", location, what=self._what, headers=headers, body=body, expect=(202, 204), again=False
                ) as answered,
            ):
                location = self._location(answered)
            start += length
        self._finish(location, blob, lambda: b"", 0)

    def _finish(self, location: str, blob: Descriptor, body: Callable[[], object], length: int) -> None:
        mark = "&" if urlsplit(location).query else "?"
        headers = {"Content-Type": _OCTETS, "Content-Length": str(length)}
        with self._repository.session.request(
            "PUT",
            f"{location}{mark}digest={quote(blob.digest, safe='')}",
            what=self._what,
            headers=headers,
            body=body,
            expect=(201, 204),
            again=False,
        ):
            pass

    def _cancel(self, location: str) -> None:
        try:
            with self._repository.session.request("DELETE", location, what=self._what, expect=(202, 204, 404, 405)):
                pass
        except RegistryError:
            # It forgets the upload by itself in time.
            return

    def _location(self, answered: Answered) -> str:
        """Where an upload goes on."""
        return self._repository.session.leads_to(answered, what=self._what)

    @contextmanager
    def _stream(
        self, opened: Callable[[], BinaryIO], start: int, length: int, tell: Callable[[int], None]
    ) -> Iterator[Callable[[], object]]:
        """What makes the body of one request: a part of the content, from its beginning each time."""
        with opened() as file:

            def body() -> Iterator[bytes]:
                file.seek(start, os.SEEK_SET)
                left = length
                while left:
                    data = file.read(min(left, _BLOCK))
                    if not data:
                        raise OSError(f"{file.name} has become shorter")
                    left -= len(data)
                    yield data
                    tell(start + length - left)

            yield body
