"""What failed steps of builds have left: each an image that no name means, in a record of the build cache.

A record names a configuration and layers among the blobs, which stay as long as it does (``collector.mark``).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import CorruptObjectError, NoSuchImageError, StoreError
from minidock.model.digest import hex_of, is_digest, is_id
from minidock.model.oci import Descriptor
from minidock.model.reference import FAILED
from minidock.store import files, locks
from minidock.store.blobs import Blobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minidock.model.oci import ImageConfig
    from minidock.store.layout import DataRoot

_SHOWN = 12


class FailedStep(NamedTuple):
    """One of them. ``id`` is the digest of its configuration; ``layers`` are as a manifest has them and ``diff_ids``
    the same plain, lowest first; the topmost is what the step ``wrote``, where it wrote anything.
    ``stored`` is nanoseconds since the epoch."""

    id: str
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    wrote: bool
    stored: int

    @property
    def name(self) -> str:
        """``FAILED:3f2a…``."""
        return f"{FAILED}:{hex_of(self.id)[:_SHOWN]}"


class FailedSteps:
    """The failed steps that a data root keeps."""

    __slots__ = ("_blobs", "_directory", "_root")

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._blobs = Blobs(root)
        self._directory = f"{root.cache}/failed"

    def add(self, config: ImageConfig, layers: Sequence[Descriptor]) -> FailedStep:
        """Keep an image whose layers (lowest first) are among the blobs and whose history ends with the failed step;
        the same one again becomes the latest.

        The record is written when all that it names is there, so a crash leaves it whole or not at all. Raises
        StoreError.
        """
        with locks.shared(self._root.collection_lock):
            missing = next((layer.digest for layer in layers if not self._blobs.has(layer.digest)), "")
            if missing:
                raise StoreError(f"the layer {missing} is not in the store")
            step_id, wrote = self._blobs.put(config.encode()), bool(layers) and not config.history[-1].empty_layer
            step = FailedStep(step_id, tuple(layers), config.diff_ids, wrote, time.time_ns())
            value = {
                "layers": [layer.to_json() for layer in layers],
                "diff_ids": list(config.diff_ids),
                "wrote": wrote,
            }
            try:
                os.makedirs(self._directory, 0o700, exist_ok=True)
                files.write_json(self._path(step.id), value, sync=False, scratch=self._root.tmp)
                os.utime(self._path(step.id), ns=(step.stored, step.stored))
            except OSError as error:
                raise StoreError(f"cannot write {self._directory}: {error.strerror}") from error
        return step

    def list(self) -> list[FailedStep]:
        """All of them, the latest first; damaged ones are passed over. Raises OSError."""
        found = [step for step in self._read_all() if step is not None]
        return sorted(found, key=lambda step: (-step.stored, step.id))

    def find(self, text: str) -> FailedStep:
        """The one that ``FAILED``, ``FAILED:ID`` or an ID, perhaps its beginning, means. Raises NoSuchImageError."""
        steps = self.list()
        if text != FAILED:
            head, _, digits = text.rpartition(":")
            wanted = digits if head in ("", FAILED, "sha256") else ""
            steps = [step for step in steps if wanted and hex_of(step.id).startswith(wanted)]
            if len(steps) > 1:
                raise NoSuchImageError(f"the name {text} is ambiguous", hint="give more of its digits")
        if not steps:
            what = "no failed step of a build is kept" if text == FAILED else f"no such failed step of a build: {text}"
            raise NoSuchImageError(what, hint="see `minidock images -a`; the latest few are kept until `builder prune`")
        return steps[0]

    def renew(self, step_id: str) -> None:
        """Let it be the latest one."""
        with suppress(OSError):
            os.utime(self._path(step_id))

    def remove(self, step_id: str) -> None:
        """Forget it; its layers go when they are next collected. Raises OSError."""
        files.unlink_if_there(self._path(step_id))

    def _read_all(self) -> Iterator[FailedStep | None]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return
        for name in names:
            digits = name.removesuffix(".json")
            if is_id(digits):
                yield self._read(f"sha256:{digits}")

    def _read(self, step_id: str) -> FailedStep | None:
        path = self._path(step_id)
        try:
            value, stored = files.read_json(path), os.stat(path).st_mtime_ns
            layers, diff_ids = value.get("layers"), value.get("diff_ids")
            if not isinstance(layers, list) or not isinstance(diff_ids, list) or len(layers) != len(diff_ids):
                return None
            if not all(isinstance(diff_id, str) and is_digest(diff_id) for diff_id in diff_ids):
                return None
            found = tuple(map(Descriptor.from_json, layers))
            return FailedStep(step_id, found, tuple(diff_ids), bool(found and value.get("wrote")), stored)
        except (FileNotFoundError, CorruptObjectError):
            return None

    def _path(self, step_id: str) -> str:
        return f"{self._directory}/{hex_of(step_id)}.json"
