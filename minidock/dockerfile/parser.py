"""Text to stages of typed instructions. Nothing is read, looked up or run."""

from __future__ import annotations

from typing import NamedTuple

from minidock.dockerfile.excerpt import Source
from minidock.dockerfile.instructions import Arg, Directives, Finding, From, Instruction, Location, Onbuild, Stage
from minidock.dockerfile.lexer import LogicalLine, lex
from minidock.dockerfile.readers import read_from, read_instruction
from minidock.dockerfile.request import make_request
from minidock.errors import DockerfileError


class Dockerfile(NamedTuple):
    """A whole file. ``global_args`` are the ARGs before the first FROM; ``source`` makes errors with an excerpt."""

    directives: Directives
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[Finding, ...]
    source: Source

    @property
    def escape(self) -> str:
        """The escape character, which ``expand`` needs."""
        return self.directives.escape


def parse(text: str, *, filename: str = "Dockerfile") -> Dockerfile:
    """Parse a Dockerfile; raise DockerfileError with its place, excerpt and, where one is near, a suggestion.

    ``text`` may begin with a byte order mark and have CRLF line ends.
    """
    source = Source(filename, text.removeprefix("\ufeff"))
    lexed = lex(source)
    global_args: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in lexed.lines:
        found = _read(source, line, escape=lexed.directives.escape)
        if isinstance(found, From):
            stages.append((found, []))
        elif stages:
            stages[-1][1].append(found)
        elif isinstance(found, Arg):
            global_args.append(found)
        else:
            word = line.text.split()[0].upper()
            raise source.error(
                _message(line, f"{word} stands before the first FROM"),
                line.line,
                line.end_line,
                hint="only ARG may stand before it; FROM scratch begins with nothing",
            )
    if not stages:
        last = lexed.lines[-1].line if lexed.lines else 0
        raise source.error(
            "the dockerfile has no FROM" if lexed.lines else "the dockerfile has no instructions",
            last,
            hint="begin it with FROM IMAGE, or FROM scratch for nothing",
        )
    return Dockerfile(
        lexed.directives,
        tuple(global_args),
        tuple(Stage(number, origin, tuple(found)) for number, (origin, found) in enumerate(stages)),
        lexed.warnings,
        source,
    )


def parse_trigger(text: str, *, filename: str = "ONBUILD") -> Instruction:
    """Parse one instruction that an image's configuration stores for its children (``Onbuild.text``).

    The place of a DockerfileError, and of the instruction, is within ``text``.
    """
    source = Source(filename, text)
    lexed = lex(source)
    if len(lexed.lines) != 1:
        raise source.error(f"an ONBUILD trigger is one instruction, not {len(lexed.lines)}", 1)
    line = lexed.lines[0]
    wrapped = line._replace(text=f"ONBUILD {line.text}")
    found = _read(source, wrapped, escape=lexed.directives.escape)
    assert isinstance(found, Onbuild)
    return found.trigger


def _read(source: Source, line: LogicalLine, *, escape: str) -> Instruction | From:
    location = Location(line.line, line.end_line, line.text)
    try:
        request = make_request(line.text, heredocs=line.heredocs, location=location, escape=escape)
        return read_from(request) if request.word == "FROM" else read_instruction(request)
    except DockerfileError as error:
        raise source.error(_message(line, error.message), line.line, line.end_line, hint=error.hint) from None


def _message(line: LogicalLine, reason: str) -> str:
    return f"dockerfile parse error on line {line.line}: {reason}"
