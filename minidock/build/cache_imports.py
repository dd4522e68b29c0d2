"""Steps that are taken from caches of elsewhere (``--cache-from``): folders of the host, images of this store.

A cache is a hint. What is missing, damaged or makes no sense is told once and passed over, and the step runs. A source
is asked only for the keys of steps that are at hand and that the store itself does not know, and a layer comes into the
store only when a step hits it: copied under its digest, then made ready to be mounted above the layers of that step, so
that none which cannot be a layer gets a record. What a key's layer holds is the word of whoever wrote the source.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from minidock.build.cache import CacheRecord
from minidock.build.cache_folder import CacheFolder
from minidock.build.cache_records import INLINE_KEY, decode_inline
from minidock.errors import CorruptObjectError, MinidockError, StoreError
from minidock.model.cache_places import IMAGE
from minidock.model.oci import decode_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from minidock.build.cache import Key
    from minidock.build.cache_records import Offer
    from minidock.build.progress import Progress
    from minidock.build.tools import Tools
    from minidock.model.cache_places import CacheFrom
    from minidock.store.images import Images
    from minidock.store.staging import Staging


class _Source(Protocol):
    """What offers layers. Methods raise MinidockError, OSError."""

    def find(self, key: str, /) -> Offer | None: ...

    def copy_layer(self, offer: Offer, path: str, on_copied: Callable[[int], None], /) -> None: ...


class _Asked(NamedTuple):
    """A source, with how the user called it."""

    name: str
    source: _Source


class ImageRecords:
    """The records that an image of the store keeps of its own layers, which are there."""

    __slots__ = ("_records",)

    def __init__(self, images: Images, name: str) -> None:
        """Raises NoSuchImageError, CorruptObjectError."""
        image = images.get(name)
        annotations = decode_object(images.blobs.read(image.manifest_digest), what="image manifest").get("annotations")
        text = annotations.get(INLINE_KEY) if isinstance(annotations, dict) else None
        if not isinstance(text, str):
            raise CorruptObjectError(
                "it keeps no cache records", hint="they are in it when it is built with --cache-to type=inline"
            )
        self._records: Mapping[str, Offer] = decode_inline(text, image.config.diff_ids)

    def find(self, key: str) -> Offer | None:
        return self._records.get(key)

    def copy_layer(self, offer: Offer, *_: object) -> None:
        """There is nowhere to copy it from."""
        raise CorruptObjectError(f"the layer {offer.diff_id} is not in the store any more")


class Imports:
    """The sources of one build, in the order in which they are asked. A context manager.

    Processes that build one stage have copies of it: what they tell is told once in all, and what they find damaged is
    noted in the build's own directory, ``staging``.
    """

    __slots__ = ("_asked", "_open", "_staging")

    def __init__(self, sources: Sequence[CacheFrom], *, images: Images, staging: Staging, progress: Progress) -> None:
        self._asked: list[_Asked] = []
        self._open = ExitStack()
        self._staging = staging
        for source in sources:
            step = progress.step(f"importing cache from {source.place}")
            try:
                opened = (
                    ImageRecords(images, source.place)
                    if source.kind == IMAGE
                    else self._open.enter_context(CacheFolder(source.place))
                )
            except (MinidockError, OSError) as error:
                hint = f" ({error.hint})" if isinstance(error, MinidockError) and error.hint else ""
                progress.warning(f"the cache {source.place} is passed over: {_reason(error)}{hint}")
            else:
                self._asked.append(_Asked(source.place, opened))
            step.done()

    def __enter__(self) -> Imports:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def fetch(self, tools: Tools, key: Key, below: Sequence[str]) -> CacheRecord | None:
        """What a source has for a step that stands on the layers ``below`` (diff IDs, lowest first). The layer is among
        the blobs then, stays there until the build ends, and can be mounted; the record is the store's own."""
        for number, asked in enumerate(self._asked):
            try:
                offer = asked.source.find(key.digest)
                if offer is None:
                    continue
                if offer.diff_id is not None:
                    self._bring(tools, asked.source, offer, below)
            except (MinidockError, OSError) as error:
                self._tell(tools, number, _reason(error))
                continue
            record = CacheRecord(offer.diff_id, offer.created, asked.name)
            tools.cache.save(key, record)
            return record
        return None

    def offered(self, key: Key) -> Offer | None:
        """What a source says to have for a step, with nothing fetched."""
        for asked in self._asked:
            try:
                offer = asked.source.find(key.digest)
            except (MinidockError, OSError):
                continue
            if offer is not None:
                return offer
        return None

    def damaged(self) -> set[str]:
        """The digests of layers that some folder had damaged."""
        try:
            with open(f"{self._staging.path}/cache-damaged", encoding="ascii") as file:
                return {json.loads(line) for line in file}
        except FileNotFoundError:
            return set()

    def _bring(self, tools: Tools, source: _Source, offer: Offer, below: Sequence[str]) -> None:
        assert offer.diff_id is not None
        tools.staging.lean_on([offer.diff_id])
        if not tools.blobs.has(offer.diff_id):
            path = f"{tools.staging.path}/cache-{os.urandom(8).hex()}"
            _check_room(tools, offer.size)
            try:
                source.copy_layer(offer, path, lambda _: None)
                tools.blobs.adopt(path, offer.diff_id)
            except CorruptObjectError:
                self._note(offer.diff_id)
                raise
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        # Any blob has a digest: only what can be mounted is a layer.
        tools.rootfs.ensure((*below, offer.diff_id))

    def _note(self, diff_id: str) -> None:
        with open(f"{self._staging.path}/cache-damaged", "a", encoding="ascii") as file:
            file.write(json.dumps(diff_id) + "\n")

    def _tell(self, tools: Tools, number: int, reason: str) -> None:
        """Warn of a source, unless this or another process of the build has done so."""
        with suppress(FileExistsError):
            os.close(os.open(f"{self._staging.path}/cache-told-{number}", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            tools.progress.warning(f"the cache {self._asked[number].name} is passed over where it is damaged: {reason}")


def _check_room(tools: Tools, size: int) -> None:
    status = os.statvfs(tools.staging.path)
    if size > status.f_bavail * status.f_frsize:
        raise StoreError(f"a layer of {size} bytes has no room in the data root")


def _reason(error: MinidockError | OSError) -> str:
    return error.message if isinstance(error, MinidockError) else (error.strerror or str(error))
