"""Heredoc words, ``[fd]<<[-]DELIMITER``, and the bodies that follow the line they stand in."""

from __future__ import annotations

import re
from typing import NamedTuple

from minidock.dockerfile.words import json_form, split_flags, split_instruction, split_words

_WORD = re.compile(r"([0-9]*)<<(-?)([^<]+)", re.DOTALL)
_TAKERS = frozenset({"run", "copy", "add"})
_QUOTING = re.compile(r"""'([^']*)'|\\(.)|\"""", re.DOTALL)


class HeredocWord(NamedTuple):
    """A heredoc's word before its body is known; ``name`` is the delimiter without quotes."""

    name: str
    expand: bool
    strip_tabs: bool
    fd: int


def heredoc_word(word: str) -> HeredocWord | None:
    """``word`` read as a heredoc's, or None if it is not one.

    Any quote or backslash in the delimiter forbids expansion of the body.
    """
    match = _WORD.fullmatch(word)
    if not match:
        return None
    fd, dash, delimiter = match.groups()
    words, closed = split_words(delimiter, escape="\\")
    if len(words) != 1 or not closed:
        return None
    name = _QUOTING.sub(lambda found: found.group(1) or found.group(2) or "", words[0])
    if not name:
        return None
    return HeredocWord(name, name == delimiter, dash == "-", int(fd[:9] or 0))


def heredoc_words(line: str) -> tuple[HeredocWord, ...]:
    """The heredocs that an instruction's line announces, in order: those of RUN, COPY and ADD, also under ONBUILD.

    The JSON form has none, and a line with an open quote has none.
    """
    word, rest = split_instruction(line)
    if word.lower() == "onbuild":
        word, rest = split_instruction(rest)
    if word.lower() not in _TAKERS or "<<" not in rest:
        return ()
    _flags, rest = split_flags(rest)
    if json_form(rest) is not None:
        return ()
    words, closed = split_words(rest, escape="\\")
    if not closed:
        return ()
    return tuple(found for found in map(heredoc_word, words) if found)
