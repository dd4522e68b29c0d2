"""ADD: as COPY from the context, where a file that is a tar archive is unpacked; and files behind URLs and git
repositories."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from minidock.build.copying import add_copy
from minidock.build.work import Source
from minidock.errors import MinidockError

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Add

# What may be no path of the context: the exact grammar is loaded only then.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z0-9_][A-Za-z0-9._-]*@[^/:@]+:")


def apply(instruction: Add, stage: StageState) -> None:
    """Add the step. Raises MinidockError for sources, flags or a destination that make no sense."""
    if any(_REMOTE.match(source) for source in instruction.sources):
        _apply_remote(instruction, stage)
        return
    if instruction.checksum:
        raise MinidockError("ADD --checksum needs exactly one source, which is an URL or a git repository")
    if instruction.keep_git_dir:
        raise MinidockError("ADD --keep-git-dir needs a git repository as its source")
    add_copy("ADD", instruction, stage, Source(), unpack=instruction.unpack)


def _apply_remote(instruction: Add, stage: StageState) -> None:
    from minidock.build.copy_flags import shown_flags
    from minidock.build.remote_add import RemoteAdd, with_checksum
    from minidock.build.sources.remote import parse_remote, redacted

    operands = [with_checksum(parse_remote(source) or source, instruction.checksum) for source in instruction.sources]
    step = RemoteAdd(instruction, operands, stage.workdir, epoch=stage.arguments.epoch)
    flags = [f"--checksum={instruction.checksum}"] if instruction.checksum else []
    flags += shown_flags(instruction)
    names = [*map(redacted, instruction.sources), *(f"<<{heredoc.name}" for heredoc in instruction.heredocs)]
    shown = " ".join(["ADD", *flags, *names, instruction.destination])
    stage.add_line(f"{shown} # buildkit", instruction.location, step)
