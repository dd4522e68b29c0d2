"""The three ways an instruction's rest is cut up: flags, words and the JSON form."""

from __future__ import annotations

import json
import re
from typing import Any

from minidock.dockerfile.instructions import Flag
from minidock.errors import DockerfileError

# What the Dockerfile grammar calls white space between words; no-break spaces and the like are data.
BLANKS = " \t\v\f\r"
_SPACES = re.compile(r"[ \t\v\f\r\n]+")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


def split_instruction(line: str) -> tuple[str, str]:
    """The instruction's word as written and the rest of the line, both stripped."""
    word, *rest = _SPACES.split(line.strip(BLANKS), maxsplit=1)
    return word, rest[0].strip(BLANKS) if rest else ""


def split_blanks(rest: str) -> tuple[str, ...]:
    """Words between blanks; quotes have no meaning (FROM, COPY, ADD, EXPOSE, VOLUME)."""
    return tuple(word for word in _SPACES.split(rest) if word)


def split_words(rest: str, *, escape: str) -> tuple[tuple[str, ...], bool]:
    """Words as a shell sees them, with their quotes and escapes kept (ENV, LABEL, ARG), and whether every quote closes.

    An escape character at the very end is dropped.
    """
    words: list[str] = []
    word = ""
    quote = ""
    position = 0
    while position < len(rest):
        char = rest[position]
        position += 1
        if char == escape and quote != "'":
            if position == len(rest):
                break
            word += char + rest[position]
            position += 1
        elif not quote and char.isspace():
            if word:
                words.append(word)
            word = ""
        else:
            if quote:
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
            word += char
    if word:
        words.append(word)
    return tuple(words), not quote


def split_flags(rest: str) -> tuple[tuple[Flag, ...], str]:
    """The flags at the head of ``rest``, quotes and backslashes removed, and what follows them.

    A bare ``--`` ends them.
    """
    flags: list[Flag] = []
    position = 0
    while True:
        while position < len(rest) and rest[position].isspace():
            position += 1
        if not rest.startswith("--", position):
            return tuple(flags), rest[position:].strip(BLANKS)
        word, position = _flag_word(rest, position)
        if word == "--":
            return tuple(flags), rest[position:].strip(BLANKS)
        name, equals, value = word[2:].partition("=")
        flags.append(Flag(name, value if equals else None))


def _flag_word(rest: str, position: int) -> tuple[str, int]:
    word: list[str] = []
    quote = ""
    while position < len(rest):
        char = rest[position]
        if not quote and char.isspace():
            break
        position += 1
        if char == "\\":
            # Flags know the backslash whatever the escape directive says, and drop one at the very end.
            word.append(rest[position : position + 1])
            position += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            word.append(char)
    if quote:
        raise DockerfileError(f"a flag has an opening {quote} without its closing one: {''.join(word)[:80]}")
    return "".join(word), position


def json_form(rest: str) -> tuple[str, ...] | None:
    """The strings of a JSON array, or None if ``rest`` is not one: then it is shell text, whatever it looks like.

    Raises DockerfileError for an array with an element that is not a string.
    """
    if not rest.startswith("["):
        return None
    try:
        value: Any = json.loads(rest, parse_int=_no_number, parse_float=_no_number, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return None
    for element in value:
        if not isinstance(element, str):
            kind = _KINDS.get(type(element), "a number")
            raise DockerfileError(
                f"the JSON form takes strings only, but one element is {kind}: {rest[:80]}",
                hint="put every element between double quotes",
            )
    # Half of a surrogate pair has no UTF-8: it becomes U+FFFD, as Go's decoder has it.
    return tuple(_LONE_SURROGATES.sub("\ufffd", element) for element in value)


_KINDS: dict[type, str] = {dict: "an object", list: "an array", bool: "a boolean", type(None): "null"}


def _no_number(_text: str) -> float:
    return 0.0


def _not_json(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
