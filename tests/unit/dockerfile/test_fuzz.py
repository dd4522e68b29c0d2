"""Dockerfiles as people write them, with something done to them: nothing but a parse error comes of it, what is said is
printed and parses the same, and what has no meaning changes nothing. Large ones take time in proportion.

MINIDOCK_FUZZ=N tries N examples of each.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidock.dockerfile.checks.find import find
from minidock.dockerfile.checks.settings import Settings
from minidock.dockerfile.checks.subject import StageFacts, Subject, read_stages
from minidock.dockerfile.expand import expand, expand_body, expand_words
from minidock.dockerfile.glob import match
from minidock.dockerfile.ignore import IgnoreRules
from minidock.dockerfile.parser import Dockerfile, parse
from minidock.errors import DockerfileError
from tests.unit.dockerfile.test_golden import cases, read
from tests.unit.dockerfile.test_properties import (
    CALM,
    check_expansion,
    check_places,
    is_unicode,
    print_file,
    refusal,
    without_places,
)

LIVELY = settings(CALM, max_examples=int(os.environ.get("MINIDOCK_FUZZ", "150")))

GO = """# syntax=docker/dockerfile:1
ARG GO_VERSION=1.22
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION}-alpine AS build
ARG TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \\
    go mod download -x
COPY . .
RUN --mount=type=cache,target=/root/.cache/go-build --mount=type=bind,target=. \\
    # the linker strips what nobody reads
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=${TARGETARCH:-amd64} \\

    go build -ldflags="-s -w -X main.version=${VERSION#v}" -o /out/app ./cmd/app

FROM gcr.io/distroless/static:nonroot
COPY --from=build --link --chmod=0755 /out/app /app
USER 65532:65532
EXPOSE 8080 9090/udp
HEALTHCHECK --interval=30s --timeout=3s --retries=3 CMD ["/app", "health"]
ENTRYPOINT ["/app"]
CMD ["serve", "--addr", ":8080"]
"""
PYTHON = """FROM python:3.11-slim as base
LABEL org.opencontainers.image.title="An \\"app\\"" \\
      org.opencontainers.image.vendor='It''s us'
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PATH="/venv/bin:$PATH"
RUN <<EOF
set -eu
pip install --upgrade pip
pip install -r requirements.txt
EOF
COPY --chown=app:app <<-"CONF" <<RC /etc/app/
\t[app]
\t    debug = ${DEBUG}
\tCONF
alias ll='ls -l'
RC
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN --mount=type=secret,id=pip,target=/etc/pip.conf,required=true \\
    --network=default pip install -r <(sed 's/#.*//' requirements.txt) | tee /log
ONBUILD COPY . /app
ONBUILD RUN <<E cat > /x
y
E
VOLUME ["/data", "/cache"]
STOPSIGNAL SIGINT
WORKDIR $HOME/app
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://x.test/a.tgz /tmp/
"""
WINDOWS = """# escape=`
# check=skip=all;error=true
FROM mcr.microsoft.com/windows/nanoserver
COPY testfile.txt c:\\
RUN dir c:\\ `
    && echo "x`"y" `
    # between
    && ver
ENV OLD value with spaces
MAINTAINER Somebody <x@y.test>
"""
CORPUS = [
    *(GO, PYTHON, WINDOWS, "FROM scratch\n"),
    *(read("positive", case, "Dockerfile") for case in cases("positive")),
    *(read("negative", case, "Dockerfile") for case in cases("negative")),
]
PIECES = [
    *(
        "\\\n",
        "`\n",
        "\\ \t\n",
        "\\\r\n",
        "\\",
        "`",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "#",
        "# x\n",
        " ",
        "\t",
        "\x00",
        "\ufeff",
    ),
    *(
        "'",
        '"',
        "$",
        "${",
        "}",
        ":-",
        ":?",
        "##",
        "%",
        "//",
        "/",
        "=",
        "[",
        '["',
        "]",
        ",",
        "<<E",
        "<<-E",
        "\nE\n",
        "E",
    ),
    *("--", "--x=", " AS ", "\nFROM a AS b\n", "\nONBUILD ", "\nRUN ", "\nCOPY ", "\nENV ", "\nARG a=", "# escape=`\n"),
    *("\ud800", "\U0001f600", "\u2028", "\x0b", "\x0c", "\x85", "\xa0", "\x1b[31m", "é", "漢", "a" * 5000, "$a" * 200),
]


class Change(NamedTuple):
    """Something to be done to a text: ``first`` and ``second`` are places in it, as parts of its length."""

    kind: str
    first: float
    second: float
    piece: str


CHANGES = st.builds(
    Change,
    st.sampled_from(["insert", "insert", "replace", "delete", "copy", "move", "crlf", "upper", "line", "join"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.one_of(st.sampled_from(PIECES), st.text(max_size=5)),
)


def changed(text: str, change: Change) -> str:
    start, end = sorted((int(len(text) * change.first), int(len(text) * change.second)))
    end = min(end, start + 400)
    lines = text.split("\n")
    place = int((len(lines) - 1) * change.first)
    one = lines[int((len(lines) - 1) * change.second)]
    joined = change.piece.join(lines[place : place + 2])
    return {
        "insert": text[:start] + change.piece + text[start:],
        "replace": text[:start] + change.piece + text[start + len(change.piece) :],
        "delete": text[:start] + text[end:],
        "copy": text[:end] + text[start:end] + text[end:],
        "move": text[:start] + text[end:] + text[start:end],
        "crlf": text[:start] + text[start:end].replace("\n", "\r\n") + text[end:],
        "upper": text[:start] + text[start:end].swapcase() + text[end:],
        "line": "\n".join([*lines[:place], one, *lines[place:]]),
        "join": "\n".join([*lines[:place], joined, *lines[place + 2 :]]),
    }[change.kind]


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A file of the corpus, or two, after some changes."""
    text = draw(st.sampled_from(CORPUS))
    if draw(st.integers(0, 4)) == 0:
        text += draw(st.sampled_from(CORPUS))
    for change in draw(st.lists(CHANGES, max_size=6)):
        text = changed(text, change)
    return text


def parsed(text: str) -> Dockerfile | None:
    """What a text says, None where it is refused; any error but that, or one without its place, fails the test."""
    found: list[Dockerfile] = []
    error = refusal(lambda: found.append(parse(text)))
    if error is None:
        return found[0]
    assert error.message
    assert 0 <= error.line <= error.end_line <= text.count("\n") + 1
    assert not error.line or error.excerpt.startswith(f"Dockerfile:{error.line}\n")
    assert all(char.isprintable() or char in "\n\t" for char in error.excerpt)
    return None


def says(found: Dockerfile | None) -> object:
    return None if found is None else without_places(found)


@given(texts())
@LIVELY
def test_a_changed_file_parses_or_is_refused(text: str) -> None:
    found = parsed(text)
    if found is None:
        return
    check_places(found, text)
    for stage in found.stages:
        for instruction in stage.instructions:
            check_expansion(instruction, found.escape)
    facts = [StageFacts(stage, -1, {}, triggers=()) for stage in found.stages]
    stages = read_stages(found, facts, scope={"a": "1"}, given={"b": "2"})
    subject = Subject(found, {"a": "1"}, {}, stages, lambda path: "a" in path)
    error = refusal(lambda: find(subject, Settings(experimental=frozenset(["all"]))))
    assert error is None or error.message


@given(texts().filter(is_unicode))
@LIVELY
def test_what_a_changed_file_says_is_printed_and_parses_the_same(text: str) -> None:
    found = parsed(text)
    if found is None:
        return
    printed = print_file(found)
    again = parse(printed)
    assert without_places(again) == without_places(found)
    assert print_file(again) == printed


@given(texts())
@LIVELY
def test_line_ends_a_byte_order_mark_and_a_tail_mean_nothing(text: str) -> None:
    text = text.replace("\r", "").lstrip("\ufeff")
    found = parsed(text)
    assert says(parsed("\ufeff" + text)) == says(found)
    if found is None:
        return
    if not text.rstrip(" \t\n").endswith(found.escape):
        assert says(parsed(f"{text}\n\n# the end\n  \n")) == says(found)
    if "<<" not in text:
        # A heredoc's body is data, its line ends too.
        assert says(parsed(text.replace("\n", "\r\n"))) == says(found)


@given(texts(), st.integers(0, 50), st.sampled_from(["", "  # a comment\n", "#\n# two\n"]))
@LIVELY
def test_a_line_may_be_continued_between_words(text: str, place: int, between: str) -> None:
    found = parsed(text)
    if found is None or "<<" in text:
        return
    instructions = [one for stage in found.stages for one in stage.instructions]
    if not instructions:
        return
    line = instructions[place % len(instructions)].location.line - 1
    lines = text.removeprefix("\ufeff").split("\n")
    blank = re.search(r"(?<=[A-Za-z]) (?=[A-Za-z0-9])", lines[line])
    if blank:
        lines[line] = f"{lines[line][: blank.end()]}{found.escape}\n{between}{lines[line][blank.end() :]}"
        assert says(parsed("\n".join(lines))) == says(found)


@given(st.lists(CHANGES, max_size=4), st.sampled_from(["**/*.pyc\n!keep/\n# c\n/a/../b\n", "*\n!src/**\n[a-z]?\\*\n"]))
@LIVELY
def test_a_changed_ignore_file_is_read_or_refused(changes: list[Change], text: str) -> None:
    for change in changes:
        text = changed(text, change)
    rules: list[IgnoreRules] = []
    error = refusal(lambda: rules.append(IgnoreRules.parse(text)))
    assert error is None or (error.message and error.line)
    for found in rules:
        for path in ("a", "src/x.pyc", "keep/a/b", "b", "\ud800"):
            # What is pruned is left out itself.
            assert found.matches(path) or not found.prunes(path)


MANY = 50_000
LARGE: dict[str, Callable[[], object]] = {
    "lines": lambda: parse("FROM x\n" + "ENV a=b\n" * MANY),
    "stages": lambda: parse("FROM x AS a\nRUN b\n" * (MANY // 2)),
    "continuations": lambda: parse("FROM x\nRUN a" + " \\\n  b" * MANY + "\n"),
    "continuations and comments": lambda: parse("FROM x\nRUN a \\\n" + "# c\n\n" * MANY + "b\n"),
    "one line": lambda: parse("FROM x\nRUN " + "a b " * MANY + "\n"),
    "escapes": lambda: parse("FROM x\nRUN " + "\\ " * MANY + "x\n"),
    "blanks": lambda: parse("FROM x\nRUN a" + " " * 10 * MANY + "\\" + " " * 10 * MANY + "x\n"),
    "pairs": lambda: parse("FROM x\nENV " + "a=b " * MANY + "\n"),
    "quotes": lambda: parse("FROM x\nENV a=" + "'b'\"c\"" * MANY + "\n"),
    "flags": lambda: parse("FROM x\nRUN " + "--mount=type=tmpfs,target=/x " * (MANY // 10) + " a\n"),
    "JSON": lambda: parse("FROM x\nRUN [" + '"a", ' * MANY + '"b"]\n'),
    "no JSON": lambda: parse("FROM x\nRUN " + "[" * MANY + "\n"),
    "heredocs": lambda: parse("FROM x\n" + "RUN <<E\na\nE\n" * (MANY // 3)),
    "a heredoc": lambda: parse("FROM x\nCOPY <<E /f\n" + "a\n" * MANY + "E\n"),
    "heredocs of a line": lambda: parse("FROM x\nRUN " + "<<E " * (MANY // 10) + "\n" + "E\n" * (MANY // 10)),
    "less than signs": lambda: parse("FROM x\nRUN " + "<" * MANY + "\n"),
    "an unknown word": lambda: refusal(lambda: parse("FROM x\n" + "A" * MANY * 10 + " b\n")),
    "an unknown flag": lambda: refusal(lambda: parse("FROM x\nRUN --" + "a" * MANY * 10 + " b\n")),
    "a late error": lambda: refusal(lambda: parse("FROM x\n" + "ENV a=b\n" * MANY + "NOPE\n")),
    "no end": lambda: refusal(lambda: parse("FROM x\nRUN <<E\n" + "x\n" * MANY)),
    "variables": lambda: expand("$a${b}" * MANY, {"a": "1"}),
    "variables as words": lambda: expand_words("$a ${b} " * MANY, {"a": "1 2"}),
    "quoted variables": lambda: expand('"' + "$a\\$" * MANY + '"', {"a": "1"}),
    "a body": lambda: expand_body("$a\n'\"" * MANY, {"a": "1"}),
    "a name": lambda: expand("$" + "a" * MANY * 10, {}),
    "nesting": lambda: refusal(lambda: expand("${a:-" * MANY, {})),
    "replacing": lambda: expand("${a//b/cc}", {"a": "ab" * MANY}),
    "replacing with stars": lambda: expand("${a//b*c*d*e/x}", {"a": "bcd" * MANY}),
    "trimming": lambda: expand("${a%%*b*c*d}", {"a": "bc" * MANY}),
    "ignore rules": lambda: IgnoreRules.parse("a/**/b\n!c\n" * (MANY // 20)).matches("a/" * 100),
    "a pattern": lambda: match("*a" * 500 + "b", "a" * 2000),
    "an ignore rule": lambda: IgnoreRules.parse("/".join(["**/a*"] * 100)).matches("a/" * 2000),
}
# Each takes a second at most; what is superlinear, minutes and more.
MOST_SECONDS = 20


@pytest.mark.parametrize("shape", LARGE)
def test_large_ones_take_time_in_proportion(shape: str) -> None:
    begun = time.process_time()
    LARGE[shape]()
    assert time.process_time() - begun < MOST_SECONDS


def test_the_checks_of_a_large_file_take_time_in_proportion() -> None:
    lines = ["MAINTAINER x", "ENV a b", "WORKDIR x", "USER $undefined", "EXPOSE 1/TCP", "CMD a", "ENV password=1"]
    found = parse("FROM x as a\n" + "".join(f"{lines[number % len(lines)]}\n" for number in range(MANY // 2)))
    facts = [StageFacts(stage, -1, {}, triggers=()) for stage in found.stages]
    begun = time.process_time()
    stages = read_stages(found, facts, scope={}, given={})
    findings = find(Subject(found, {}, {}, stages, lambda _: False), Settings())
    assert len(findings) > MANY // 4
    assert time.process_time() - begun < MOST_SECONDS


def test_suggestions_for_many_unknown_names_take_time_in_proportion() -> None:
    """Each is compared with some of the known names, not with all."""
    found = parse("FROM x\n" + "".join(f"ENV V{number:05}=$U{number:05}\n" for number in range(MANY // 10)))
    begun = time.process_time()
    stages = read_stages(found, [StageFacts(stage, -1, {}, triggers=()) for stage in found.stages], scope={}, given={})
    assert len(find(Subject(found, {}, {}, stages, lambda _: False), Settings())) == MANY // 10
    assert time.process_time() - begun < MOST_SECONDS


@pytest.mark.parametrize("word", ["$a$a", "${a:-x}${a:+$a}", '"$a$a"', "${a//x/" + "x" * 1000 + "}"])
def test_what_grows_without_end_is_refused(word: str) -> None:
    """Thirty lines that double a variable would be a gigabyte."""

    def grow() -> None:
        value = "x" * 1000
        for _ in range(60):
            value = expand(word, {"a": value})

    with pytest.raises(DockerfileError, match="longer than"):
        grow()
