"""The cache of a build and the world outside: what it takes from elsewhere and leaves behind (``--cache-from``,
``--cache-to``).

Which records a build used is noted as it goes, in a file of the build's own directory, since the steps run in several
processes. What is exported is made of these and no others.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minidock.build.cache_folder import check_destination, write_folder
from minidock.build.cache_imports import Imports
from minidock.build.cache_records import INLINE_KEY, MAX_INLINE, Used, encode_inline
from minidock.build.export import stepping
from minidock.errors import MinidockError
from minidock.model.cache_places import INLINE, LOCAL, CacheTo
from minidock.model.digest import Chain
from minidock.store.files import write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minidock.build.cache import BuildCache, CacheRecord, Key
    from minidock.build.export import Finished
    from minidock.build.progress import Progress
    from minidock.build.request import BuildRequest
    from minidock.store.blobs import Blobs
    from minidock.store.images import Images
    from minidock.store.staging import Staging

_NOTES = "cache-used"
# Layers of a context's files, which a build with the same files makes again: no step's result.
_NO_STEP = "CONTEXT"


@contextmanager
def open_exchange(
    request: BuildRequest, cache: BuildCache, *, images: Images, staging: Staging, progress: Progress, inline: bool
) -> Iterator[Exchange]:
    """Be ready to take records from where ``request`` says, and note from now on which ``cache`` gives or gets.

    ``inline`` asks for the image's own records, as ``type=inline`` does. Raises UsageError for a destination that holds
    something else.
    """
    wanted = [*request.cache_to, *([CacheTo(INLINE)] if inline else [])]
    for place in wanted:
        if place.kind == LOCAL:
            check_destination(place.path)
    with Imports(request.cache_from, images=images, staging=staging, progress=progress) as imports:
        yield Exchange(wanted, cache, imports, staging=staging)


class Exchange:
    """The exchange of one build: ``imports`` is what its steps may be taken from."""

    __slots__ = ("_staging", "_wanted", "imports")

    def __init__(self, wanted: list[CacheTo], cache: BuildCache, imports: Imports, *, staging: Staging) -> None:
        self._wanted = wanted
        self._staging = staging
        self.imports = imports
        if wanted:
            cache.on_use = self._note

    def inlined(self, finished: Finished) -> Finished:
        """What is finished, with the records of its own layers where they are asked for."""
        if not any(place.kind == INLINE for place in self._wanted):
            return finished
        with stepping(finished.progress, "preparing layers for inline cache"):
            text = encode_inline(_of_result(self._used(), finished))
        if len(text) > MAX_INLINE:
            finished.progress.warning("the image keeps no cache records: they would be too large for its manifest")
            return finished
        return finished._replace(annotations=((INLINE_KEY, text),))

    def export(self, finished: Finished, blobs: Blobs) -> None:
        """Write the folders. Where one cannot be written, that is told, and fails the build only if it was asked to.

        Raises HostError, UsageError then.
        """
        for place in self._wanted:
            if place.kind != LOCAL:
                continue
            used = self._used()
            records = used if place.whole else _of_result(used, finished)
            try:
                with stepping(finished.progress, f"exporting cache to {place.path}") as step:
                    write_folder(place.path, records, blobs, anew=self.imports.damaged(), on_copied=step.copied)
            except MinidockError as error:
                if place.strict:
                    raise
                finished.progress.warning(f"the cache is not whole: {error}")

    def _note(self, key: Key, record: CacheRecord) -> None:
        """Write down a record of use; of one key the last counts."""
        below, instruction = str(key.inputs.get("below", "")), str(key.inputs.get("instruction", ""))
        if instruction == _NO_STEP:
            return
        line = json.dumps([key.digest, record.diff_id, record.created, below, instruction]) + "\n"
        # Lines of several processes: each is one write.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(f"{self._staging.path}/{_NOTES}", flags, 0o600)
        try:
            write_all(fd, line.encode())
        finally:
            os.close(fd)

    def _used(self) -> list[Used]:
        try:
            with open(f"{self._staging.path}/{_NOTES}", encoding="ascii") as file:
                noted = [Used(*json.loads(line)) for line in file]
        except FileNotFoundError:
            return []
        return list({used.key: used for used in noted}.values())


def _of_result(used: list[Used], finished: Finished) -> list[Used]:
    """Those whose layers the image has above the ones that it inherits, and steps on its layers without a change."""
    diff_ids = finished.config.diff_ids
    chain = Chain(diff_ids)
    places = {"", *(chain.id(count) for count in range(1, len(diff_ids) + 1))}
    own = set(diff_ids[finished.inherited :])
    return [one for one in used if (one.below in places if one.diff_id is None else one.diff_id in own)]
