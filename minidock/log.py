"""Messages for a person, on standard error.

A ``Log`` is a value that is handed down, never module state. The standard library's ``logging`` costs more at import
than the whole of a container's start-up may.
"""

from __future__ import annotations

import os


class Log:
    """Writes whole lines to a descriptor (2 by default); ``debug`` lines only when asked for.

    A closed or full descriptor never raises: losing a message is no reason to fail.
    """

    __slots__ = ("fd", "verbose")

    def __init__(self, *, verbose: bool = False, fd: int = 2) -> None:
        self.verbose = verbose
        self.fd = fd

    def debug(self, message: str) -> None:
        if self.verbose:
            self._write(message)

    def notice(self, message: str) -> None:
        self._write(f"minidock: {message}")

    def warning(self, message: str) -> None:
        self._write(f"minidock: warning: {message}")

    def _write(self, line: str) -> None:
        # Names and paths come from anywhere: what is not printable must not drive the terminal.
        try:
            os.write(self.fd, f"{printable(line)}\n".encode("utf-8", "backslashreplace"))
        except OSError:
            return


def printable(text: str) -> str:
    """``text`` with everything escaped that could drive a terminal, line breaks aside."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
