"""The patterns of ``${V#p}``, ``${V%p}`` and ``${V/p/r}``: ``*``, ``?`` and the backslash.

A pattern is its pieces between the stars. The first occurrence of a piece leaves the most for those after it, so a
match needs no backtracking and its time does not grow with the number of stars.
"""

from __future__ import annotations

import re

from minidock.errors import DockerfileError


class ShellPattern:
    """A pattern that was read once; raises DockerfileError for a backslash before anything but ``* ? \\ } /``."""

    __slots__ = ("_pieces",)

    def __init__(self, text: str) -> None:
        # Each piece is a list of characters; "" stands for any one character.
        pieces: list[list[str]] = [[]]
        at = 0
        while at < len(text):
            char = text[at]
            if char == "\\":
                at += 1
                escaped = text[at : at + 1]
                if escaped not in ("*", "?", "\\", "}", "/", '"', "$"):
                    raise DockerfileError(
                        f"invalid escape {char + escaped!r} in the pattern {text[:80]!r}",
                        hint="a backslash may stand before * ? \\ } and /",
                    )
                pieces[-1].append(escaped)
            elif char == "*":
                pieces.append([])
            else:
                pieces[-1].append("" if char == "?" else char)
            at += 1
        self._pieces = pieces

    def without_prefix(self, value: str, *, longest: bool) -> str:
        """``value`` without the shortest or longest head that matches."""
        end = _match(self._pieces, value, longest=longest)
        return value if end < 0 else value[end:]

    def without_suffix(self, value: str, *, longest: bool) -> str:
        """``value`` without the shortest or longest tail that matches."""
        mirrored = [piece[::-1] for piece in reversed(self._pieces)]
        end = _match(mirrored, value[::-1], longest=longest)
        return value if end < 0 else value[: len(value) - end]

    def replace(self, value: str, replacement: str, *, every: bool, most: int) -> str | None:
        """``value`` with the first match, or each, replaced; every match is the longest at the leftmost place. None
        where that would be longer than ``most`` characters.

        An empty pattern matches nothing.
        """
        if self._pieces == [[]]:
            return value
        found: list[str] = []
        at = size = 0
        while True:
            start = _find(self._pieces[0], value, at)
            end = _match(self._pieces, value, longest=True, start=start) if start >= 0 else -1
            if end < 0:
                break
            found += [value[at:start], replacement]
            size += start - at + len(replacement)
            if size > most:
                return None
            at = end
            if not every or at == len(value):
                break
        return "".join(found) + value[at:]


def _match(pieces: list[list[str]], value: str, *, longest: bool, start: int = 0) -> int:
    """The end of the match that begins at ``start``, or -1."""
    if not _compiled(pieces[0]).match(value, start):
        return -1
    end = start + len(pieces[0])
    if len(pieces) == 1:
        return end
    for piece in pieces[1:-1]:
        end = _find(piece, value, end)
        if end < 0:
            return -1
        end += len(piece)
    last = _find_last(pieces[-1], value, end) if longest else _find(pieces[-1], value, end)
    return -1 if last < 0 else last + len(pieces[-1])


def _find(piece: list[str], value: str, start: int) -> int:
    match = _compiled(piece).search(value, start)
    return match.start() if match else -1


def _find_last(piece: list[str], value: str, start: int) -> int:
    # Mirrored, the last occurrence is the first one.
    limit = len(value) - start
    match = _compiled(piece[::-1]).search(value[::-1], 0, limit)
    return len(value) - match.end() if match else -1


def _compiled(piece: list[str]) -> re.Pattern[str]:
    return re.compile("".join(re.escape(char) if char else "." for char in piece), re.DOTALL)
