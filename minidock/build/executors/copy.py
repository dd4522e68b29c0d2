"""COPY: files of the context, a stage or an image into the root file system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.copying import add_copy
from minidock.build.work import Source
from minidock.errors import MinidockError

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Copy

_REMOTE = ("http://", "https://", "git://", "ssh://", "git@")


def apply(instruction: Copy, stage: StageState) -> None:
    """Add the step. Raises MinidockError for sources, flags or a destination that make no sense."""
    remote = next((source for source in instruction.sources if source.startswith(_REMOTE)), "")
    if remote:
        from minidock.build.sources.remote import redacted

        raise MinidockError(f"COPY takes no URL: {redacted(remote)}", hint="write ADD instead of COPY")
    source = stage.find_source(instruction.from_) if instruction.from_ else Source()
    add_copy("COPY", instruction, stage, source, unpack=False)
