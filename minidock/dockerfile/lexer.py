"""A Dockerfile's text cut into directives and logical lines: comments, continuations, line ends, heredocs."""

from __future__ import annotations

import re
from typing import NamedTuple

from minidock.dockerfile.excerpt import Source
from minidock.dockerfile.heredoc import HeredocWord, heredoc_words
from minidock.dockerfile.instructions import Directives, Finding, Heredoc
from minidock.dockerfile.words import BLANKS
from minidock.errors import DockerfileError

_DIRECTIVE = re.compile(r"#[ \t]*([a-zA-Z][a-zA-Z0-9]*)[ \t]*=[ \t]*(\S(?:.*\S)?)[ \t]*", re.DOTALL)


class LogicalLine(NamedTuple):
    """One instruction's line, continuations joined, with its heredocs. Line numbers are 1-based and inclusive."""

    line: int
    end_line: int
    text: str
    heredocs: tuple[Heredoc, ...]


class Lexed(NamedTuple):
    """What the lexer found: directives, the instructions' lines and warnings."""

    directives: Directives
    lines: tuple[LogicalLine, ...]
    warnings: tuple[Finding, ...]


def lex(source: Source) -> Lexed:
    """Cut ``source`` up; raise DockerfileError, with its place, for a bad directive or a heredoc without an end."""
    physical = source.text.split("\n")
    if physical[-1] == "":
        physical.pop()
    directives = _directives(source, physical)
    return _Lines(source, physical, directives).lexed()


def is_directive(line: str) -> bool:
    """Whether a comment's line has the form of a parser directive; at the top of a file it is one."""
    match = _DIRECTIVE.fullmatch(line.rstrip("\r"))
    return match is not None and match.group(1).lower() in Directives._fields


def _directives(source: Source, physical: list[str]) -> Directives:
    found: dict[str, str] = {}
    for number, text in enumerate(physical, 1):
        match = _DIRECTIVE.fullmatch(text.rstrip("\r"))
        key = match.group(1).lower() if match else ""
        if not match or key not in Directives._fields:
            break
        if key in found:
            raise source.error(_parse_error(number, f"only one {key} directive can be used"), number)
        if key == "escape" and match.group(2) not in ("\\", "`"):
            raise source.error(
                _parse_error(number, f"invalid escape directive {match.group(2)!r}"),
                number,
                hint="the escape character is \\ or `",
            )
        found[key] = match.group(2)
    return Directives(**found)


class _Lines:
    __slots__ = ("at", "continued", "directives", "escape", "physical", "source", "warnings")

    def __init__(self, source: Source, physical: list[str], directives: Directives) -> None:
        self.source = source
        self.physical = physical
        self.directives = directives
        self.escape = directives.escape
        escape = re.escape(directives.escape)
        # An escape character before the last one makes that one data.
        self.continued = re.compile(rf"(?<!{escape}){escape}[ \t]*\Z")
        self.at = 0
        self.warnings: list[Finding] = []

    def lexed(self) -> Lexed:
        lines: list[LogicalLine] = []
        while self.at < len(self.physical):
            first = self.physical[self.at].strip(BLANKS)
            if not first or first.startswith("#"):
                self.at += 1
                continue
            line = self._logical_line()
            if line.text:
                lines.append(line)
        return Lexed(self.directives, tuple(lines), tuple(self.warnings))

    def _logical_line(self) -> LogicalLine:
        start = self.at
        piece, more = self._uncontinued(self.physical[self.at].lstrip(BLANKS))
        pieces = [piece]
        self.at += 1
        end, empty = self.at, 0
        while more and self.at < len(self.physical):
            text = self.physical[self.at]
            stripped = text.strip(BLANKS)
            self.at += 1
            if not stripped:
                empty = empty or self.at
            elif not stripped.startswith("#"):
                piece, more = self._uncontinued(text)
                pieces.append(piece)
                end = self.at
        if empty:
            self.warnings.append(Finding("NoEmptyContinuation", "empty continuation line", empty))
        text = "".join(pieces).strip(BLANKS)
        heredocs = self._heredocs(start, text)
        return LogicalLine(start + 1, self.at if heredocs else end, text, heredocs)

    def _uncontinued(self, text: str) -> tuple[str, bool]:
        text = text.rstrip("\r")
        joined = self.continued.sub("", text)
        return joined, joined != text

    def _heredocs(self, start: int, text: str) -> tuple[Heredoc, ...]:
        try:
            words = heredoc_words(text)
        except DockerfileError as error:
            raise self.source.error(
                _parse_error(start + 1, error.message), start + 1, self.at, hint=error.hint
            ) from None
        return tuple(self._body(word, start) for word in words)

    def _body(self, word: HeredocWord, start: int) -> Heredoc:
        body: list[str] = []
        while self.at < len(self.physical):
            text = self.physical[self.at]
            self.at += 1
            ending = text.rstrip("\r")
            if (ending.lstrip("\t") if word.strip_tabs else ending) == word.name:
                return Heredoc(word.name, "".join(body), expand=word.expand, strip_tabs=word.strip_tabs, fd=word.fd)
            body.append(text + "\n")
        raise self.source.error(
            _parse_error(start + 1, f"unterminated heredoc {word.name!r}"),
            start + 1,
            self.at,
            hint=f"end it with a line that holds {word.name} alone",
        )


def _parse_error(line: int, message: str) -> str:
    return f"dockerfile parse error on line {line}: {message}"
