"""Failures on standard error: one sentence, what to do next, and a traceback only for what
nobody foresaw, where ``--debug`` asks for it."""

from __future__ import annotations

import sys

from minidock.cli.text import printable
from minidock.errors import DockerfileError, MinidockError


def report(error: BaseException, *, debug: bool) -> int:
    """Print a failure and return the exit status that it has of its own."""
    if isinstance(error, DockerfileError) and error.excerpt:
        _line(error.excerpt.rstrip("\n"))
    if isinstance(error, MinidockError):
        _line(f"minidock: {error.message}")
        if error.hint:
            _line(error.hint)
        return error.exit_status
    _line(f"minidock: {_unexpected(error)}")
    if debug:
        import traceback

        traceback.print_exception(error)
    else:
        _line("run the command again with 'minidock --debug ...' for the details")
    return 1


def _unexpected(error: BaseException) -> str:
    """One sentence for an error that nobody foresaw: a kernel's refusal, or a defect."""
    if isinstance(error, OSError) and error.strerror:
        path = f": {error.filename}" if error.filename else ""
        return f"{error.strerror.lower()}{path}"
    text = str(error).strip().split("\n")[0]
    return f"unexpected {type(error).__name__}" + (f": {text}" if text else "")


def _line(text: str) -> None:
    sys.stderr.write(printable(text, keep="\n") + "\n")
