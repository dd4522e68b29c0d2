"""Errors with their place in the Dockerfile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.dockerfile.excerpt import excerpt
from minidock.errors import BuildError, DockerfileError, MinidockError

if TYPE_CHECKING:
    from minidock.dockerfile.excerpt import Source
    from minidock.dockerfile.instructions import Location


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
    return BuildError(
        message_of(error),
        filename=source.filename,
        line=location.line,
        end_line=location.end_line,
        excerpt=excerpt(source.text, filename=source.filename, line=location.line, end_line=location.end_line),
        hint=error.hint if isinstance(error, MinidockError) else "",
    )


def message_of(error: MinidockError | OSError) -> str:
    """The sentence of an error, the kernel's with the path it is about."""
    if isinstance(error, MinidockError):
        return error.message
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
