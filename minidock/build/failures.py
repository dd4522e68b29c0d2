"""Errors with their place in the Dockerfile."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from minidock.dockerfile.excerpt import excerpt
from minidock.errors import BuildError, CommandFailedError, DockerfileError, MinidockError
from minidock.store.files import hint_for

if TYPE_CHECKING:
    from minidock.dockerfile.excerpt import Source
    from minidock.dockerfile.instructions import Location

_ADVICE = {
    126: "what it calls cannot be executed: look at the file's mode, its first line, and its architecture",
    127: "a program was not found: is it installed in this stage, spelled right, and in PATH?",
    137: "it was killed: perhaps there was too little memory",
    139: "a program crashed (segmentation fault): is it built for this image's libraries and architecture?",
}


def build_error(source: Source, location: Location, error: MinidockError | OSError) -> BuildError:
    """``error`` as the failure of the instruction at ``location``, with its lines. A place that it has stays."""
    if isinstance(error, BuildError) and error.line:
        return error
    if isinstance(error, DockerfileError) and error.line:
        return BuildError(
            error.message,
            filename=error.filename,
            line=error.line,
            end_line=error.end_line,
            excerpt=error.excerpt,
            hint=error.hint,
        )
    failed = error if isinstance(error, CommandFailedError) else None
    return BuildError(
        message_of(error),
        filename=source.filename,
        line=location.line,
        end_line=location.end_line,
        excerpt=_excerpt(source, location),
        hint=error.hint if isinstance(error, MinidockError) else _kernels_advice(error),
        status=failed.status if failed is not None else 0,
        output=failed.output if failed is not None else "",
    )


def _kernels_advice(error: OSError) -> str:
    # Of other errors it cannot be told whether they are the store's, or about the files that are copied.
    return hint_for(error) if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""


def _excerpt(source: Source, location: Location) -> str:
    shown = excerpt(source.text, filename=source.filename, line=location.line, end_line=location.end_line)
    if "://" in shown and "@" in shown:
        from minidock.build.sources.remote import redacted

        return redacted(shown)
    return shown


def advice(status: int) -> str:
    """What to do about a command that ended with this exit status, as shells give it: 128 and the signal's number for
    one that a signal ended."""
    if status in _ADVICE:
        return _ADVICE[status]
    if 128 < status < 160:
        return f"signal {status - 128} ended it: see the end of its output"
    return "see the end of its output; the steps before it are kept, and the next build goes on from here"


def message_of(error: MinidockError | OSError) -> str:
    """The sentence of an error, the kernel's with the path it is about."""
    if isinstance(error, MinidockError):
        return error.message
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason.lower()
