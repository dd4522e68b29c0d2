"""How layers look on the wire: what a plain tarball became when it was compressed to be sent, and which repositories
have it. A hint that saves work: what it names is looked for before it is relied on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import CorruptObjectError
from minidock.model.digest import hex_of, is_digest
from minidock.store import locks
from minidock.store.files import read_json, write_json

if TYPE_CHECKING:
    from minidock.store.layout import DataRoot

# Of more repositories the oldest are forgotten.
_MOST = 64


class WireForm(NamedTuple):
    """A layer as it was sent: ``media_type``, ``digest`` and ``size`` as a manifest has them, ``encoder`` what made it,
    ``repositories`` (``HOST/PATH``) those that have it, the latest last."""

    media_type: str
    digest: str
    size: int
    encoder: str
    repositories: tuple[str, ...] = ()


class WireForms:
    """The forms of a data root's layers, a JSON file for each diff ID."""

    __slots__ = ("_directory", "_lock", "_scratch")

    def __init__(self, root: DataRoot) -> None:
        self._directory = f"{root.cache}/wire"
        self._lock = f"{root.run}/wire.lock"
        self._scratch = root.tmp
        os.makedirs(self._directory, 0o700, exist_ok=True)

    def find(self, diff_id: str) -> WireForm | None:
        """The form of a layer, None where none is known or the record is damaged."""
        try:
            value = read_json(self._path(diff_id))
            form = WireForm(
                str(value["media_type"]),
                str(value["digest"]),
                int(value["size"]),
                str(value["encoder"]),
                tuple(str(text) for text in value["repositories"]),
            )
        except (FileNotFoundError, CorruptObjectError, KeyError, TypeError, ValueError):
            return None
        return form if is_digest(form.digest) and form.size >= 0 else None

    def note(self, diff_id: str, form: WireForm, repository: str) -> None:
        """Keep the form, and that ``repository`` has it. Raises StoreError."""
        with locks.exclusive(self._lock):
            known = self.find(diff_id)
            before = known.repositories if known is not None and known.digest == form.digest else ()
            repositories = [*(text for text in before if text != repository), repository][-_MOST:]
            value = {**form._asdict(), "repositories": repositories}
            write_json(self._path(diff_id), value, sync=False, scratch=self._scratch)

    def _path(self, diff_id: str) -> str:
        return f"{self._directory}/{hex_of(diff_id)}.json"
