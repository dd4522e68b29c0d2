"""The numbered lines around an instruction, and errors that carry them (BuildKit's form, solver/errdefs/source.go)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import DockerfileError

if TYPE_CHECKING:
    from minidock.dockerfile.instructions import Location

_RULE = "-" * 20
_LONGEST = 200


class Source(NamedTuple):
    """A Dockerfile's name and whole text: what errors point into."""

    filename: str
    text: str

    def error(self, message: str, line: int, end_line: int = 0, *, hint: str = "") -> DockerfileError:
        """An error at lines ``line`` to ``end_line`` (1-based, inclusive; 0: the one line) with their excerpt."""
        end_line = end_line or line
        return DockerfileError(
            message,
            filename=self.filename,
            line=line,
            end_line=end_line,
            excerpt=excerpt(self.text, filename=self.filename, line=line, end_line=end_line),
            hint=hint,
        )

    def locate(self, error: DockerfileError, location: Location) -> DockerfileError:
        """``error`` with the place where it happened, unless it has one already."""
        if error.line:
            return error
        return self.error(error.message, location.line, location.end_line, hint=error.hint)


def excerpt(text: str, *, filename: str, line: int, end_line: int) -> str:
    """One excerpt of a text; see ``Excerpts.of``."""
    return Excerpts(filename, text).of(line, end_line)


class Excerpts:
    """Excerpts of one text, for whoever shows many: it is cut into lines once."""

    __slots__ = ("_filename", "_lines")

    def __init__(self, filename: str, text: str) -> None:
        self._filename = filename
        self._lines = text.split("\n")
        if self._lines[-1] == "":
            self._lines.pop()

    def of(self, line: int, end_line: int) -> str:
        """The lines ``line`` to ``end_line`` marked ``>>>``, with up to two neighbours on each side (one, if several
        lines are marked), between rules and under ``filename:line``. Ready to print, no newline at the end; empty for a
        line that the text does not have.
        """
        lines = self._lines
        if not 1 <= line <= len(lines):
            return ""
        last = max(line, min(end_line, len(lines)))
        around = 2 if last == line else 1
        shown = range(max(1, line - around), min(len(lines), last + around) + 1)
        body = [_numbered(number, lines[number - 1], marked=line <= number <= last) for number in shown]
        return "\n".join([f"{self._filename}:{line}", _RULE, *body, _RULE])


def _numbered(number: int, text: str, *, marked: bool) -> str:
    text = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text.rstrip("\r"))
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "..."
    return f" {number:3d} | {'>>>' if marked else '   '} {text}".rstrip()
