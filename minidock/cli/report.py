"""Failures on standard error: one sentence, what to do next, and a traceback only for what
nobody foresaw, where ``--debug`` asks for it."""

from __future__ import annotations

import errno
import sys

from minidock.cli.text import printable
from minidock.errors import DockerfileError, MinidockError

_FULL = "free some space, or choose another folder with --root DIR or MINIDOCK_ROOT"
_FORBIDDEN = "run minidock as root"
_HINTS: dict[int | None, str] = {
    errno.EROFS: "the file system is read-only: choose another folder with --root DIR or MINIDOCK_ROOT",
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}


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
    elif hint := _hint(error):
        _line(hint)
    return 1


def _hint(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename == "standard output":
        return ""
    number = error.errno if isinstance(error, OSError) else None
    return _HINTS.get(number, "run the command again with 'minidock --debug ...' for the details")


def _unexpected(error: BaseException) -> str:
    """One sentence for an error that nobody foresaw: a kernel's refusal, or a defect."""
    if isinstance(error, OSError) and error.strerror:
        path = f": {error.filename}" if error.filename else ""
        return f"{error.strerror.lower()}{path}"
    text = str(error).strip().split("\n")[0]
    return f"unexpected {type(error).__name__}" + (f": {text}" if text else "")


def _line(text: str) -> None:
    sys.stderr.write(printable(text, keep="\n") + "\n")
