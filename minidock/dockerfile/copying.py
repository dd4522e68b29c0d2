"""Readers of COPY and ADD: sources, destination and their many flags."""

from __future__ import annotations

from typing import NamedTuple

from minidock.dockerfile.heredoc import heredoc_word
from minidock.dockerfile.instructions import Add, Copy, Heredoc
from minidock.dockerfile.request import Request
from minidock.dockerfile.words import json_form, split_blanks
from minidock.errors import DockerfileError


class _Operands(NamedTuple):
    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...]


def read_copy(request: Request) -> Copy:
    """Read ``COPY``."""
    flags = request.known_flags(["from", "chown", "chmod"], booleans=["link", "parents"], repeated=["exclude"])
    operands = _operands(request)
    if "$" in flags.text("from"):
        raise DockerfileError(
            f"variables are not expanded in --from={flags.text('from')}",
            hint="name a stage: FROM IMAGE-WITH-ARG AS NAME, then --from=NAME",
        )
    if operands.heredocs and flags.text("from"):
        raise DockerfileError("COPY --from can not take a heredoc as a source")
    return Copy(
        operands.sources,
        operands.destination,
        request.location,
        heredocs=operands.heredocs,
        from_=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.boolean("link") or False,
        parents=flags.boolean("parents") or False,
        exclude=flags.texts("exclude"),
        flags=request.flags,
    )


def read_add(request: Request) -> Add:
    """Read ``ADD``."""
    flags = request.known_flags(
        ["chown", "chmod", "checksum"], booleans=["link", "keep-git-dir", "unpack"], repeated=["exclude"]
    )
    operands = _operands(request)
    return Add(
        operands.sources,
        operands.destination,
        request.location,
        heredocs=operands.heredocs,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.boolean("link") or False,
        exclude=flags.texts("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.boolean("keep-git-dir") or False,
        unpack=flags.boolean("unpack"),
        flags=request.flags,
    )


def _operands(request: Request) -> _Operands:
    args = json_form(request.rest)
    words = split_blanks(request.rest) if args is None else args
    if len(words) < 2:
        raise DockerfileError(
            f"{request.word} requires at least two arguments, but {len(words) or 'none'} was provided",
            hint=f"write {request.word} SOURCE... DESTINATION",
        )
    if not all(words):
        raise DockerfileError(f"{request.word} can not take an empty path")
    *sources, destination = words
    if not request.heredocs:
        return _Operands(tuple(sources), destination, ())
    if heredoc_word(destination):
        raise DockerfileError(f"{request.word} can not take a heredoc as its destination: {destination}")
    for heredoc in request.heredocs:
        if "/" in heredoc.name or heredoc.name in (".", ".."):
            raise DockerfileError(
                f"the heredoc {heredoc.name!r} can not be a file's name", hint="use a delimiter without '/'"
            )
    paths = tuple(source for source in sources if not heredoc_word(source))
    return _Operands(paths, destination, request.heredocs)
