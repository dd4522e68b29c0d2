"""Path patterns: Go's ``filepath.Match``, and the same with ``**`` for .dockerignore.

A pattern becomes one regular expression in which every star but the last of its part is settled by its first match
(an atomic group), so that no pattern makes matching slower than the product of the two lengths.
"""

from __future__ import annotations

import re

from minidock.errors import DockerfileError

_META = re.compile(r"[*?\[\\]")

# What a pattern is made of, besides the expressions of single characters: a star; ``**`` at the end; ``**`` at the
# beginning of a name (any depth, none included); ``**`` inside of a name; and the same where the depth is not none.
_STAR = "*"
_REST = ".*"
_BELOW = "**"
_SPLIT = "?**"
_DOWN = "/**"
_BOUNDARIES = {_BELOW: "(?:.*?/)??", _DOWN: ".*?/"}
_MOST_SPLITS = 4


def has_meta(pattern: str) -> bool:
    """True if ``pattern`` holds a character that is not itself: ``*``, ``?``, ``[`` or a backslash."""
    return _META.search(pattern) is not None


def match(pattern: str, name: str) -> bool:
    """True if the whole of ``name`` matches ``pattern`` (Go, path/filepath.Match).

    ``*`` and ``?`` and classes stop at ``/``; ``[^a-c]`` negates; a backslash makes the next character itself. Raises
    DockerfileError for a pattern that is not well-formed, whatever the name.
    """
    return compile_glob(pattern).match(name) is not None


def compile_glob(pattern: str) -> re.Pattern[str]:
    """The regular expression of ``match``, to be used with ``.match``: it is anchored at both ends."""
    return re.compile(_Reader(pattern, deep=False).regex() + r"\Z", re.DOTALL)


def ignore_regex(pattern: str) -> str:
    """The expression of one .dockerignore line: ``**`` spans any depth, and a match of a directory covers what is
    below it. To be used with ``.match`` and DOTALL.
    """
    return _Reader(pattern, deep=True).regex() + r"(?:/|\Z)"


class _Reader:
    __slots__ = ("at", "deep", "pattern")

    def __init__(self, pattern: str, *, deep: bool) -> None:
        self.pattern = pattern
        self.deep = deep
        self.at = 0

    def regex(self) -> str:
        tokens: list[str] = []
        while self.at < len(self.pattern):
            token = self._token()
            # Two in a row say no more than one.
            if not tokens or token != tokens[-1] or token not in (_STAR, _BELOW, _SPLIT):
                tokens.append(token)
        if tokens.count(_SPLIT) > _MOST_SPLITS:
            raise DockerfileError(f"the pattern {self.pattern!r} has more than {_MOST_SPLITS} '**' inside of names")
        readings: list[list[str]] = [[]]
        for token in tokens:
            if token == _SPLIT:
                # Depth none joins what stands around it, so that there is no boundary to begin anew at.
                readings = [[*reading, *choice] for reading in readings for choice in ([], [_DOWN])]
            else:
                for reading in readings:
                    reading.append(token)
        alternatives = [_regex(reading) for reading in readings]
        return alternatives[0] if len(alternatives) == 1 else f"(?:{'|'.join(alternatives)})"

    def _token(self) -> str:
        char = self.pattern[self.at]
        self.at += 1
        if char == "*":
            if not self.deep or not self.pattern.startswith("*", self.at):
                return _STAR
            aligned = self.at == 1 or self.pattern[self.at - 2] == "/"
            self.at += 1
            if self.pattern.startswith("/", self.at):
                self.at += 1
            if self.at == len(self.pattern):
                return _REST
            return _BELOW if aligned else _SPLIT
        if char == "?":
            return "[^/]"
        if char == "[":
            return self._class()
        if char == "\\":
            char = self._next()
        return re.escape(char)

    def _class(self) -> str:
        negated = self.pattern.startswith("^", self.at)
        if negated:
            self.at += 1
        ranges = ""
        while not ranges or not self.pattern.startswith("]", self.at):
            low = high = self._class_char()
            if self.pattern.startswith("-", self.at):
                self.at += 1
                high = self._class_char()
            if low <= high:
                ranges += f"{re.escape(low)}-{re.escape(high)}"
            elif not ranges:
                # An empty range matches nothing, but the class is not empty.
                ranges = "/"
        self.at += 1
        return f"(?!/)[{'^' if negated else ''}{ranges}]"

    def _class_char(self) -> str:
        char = self._next()
        if char in "-]":
            raise self._bad()
        return self._next() if char == "\\" else char

    def _next(self) -> str:
        if self.at >= len(self.pattern):
            raise self._bad()
        self.at += 1
        return self.pattern[self.at - 1]

    def _bad(self) -> DockerfileError:
        return DockerfileError(
            f"syntax error in the pattern {self.pattern!r}",
            hint="a class is [abc], [a-z] or [^a-z]; a backslash stands before the character that it quotes",
        )


def _regex(tokens: list[str]) -> str:
    """One reading of a pattern: its groups between ``**``, each made of its parts between ``*``."""
    boundaries = [""]
    groups: list[list[str]] = [[""]]
    for token in tokens:
        if token in _BOUNDARIES:
            boundaries.append(_BOUNDARIES[token])
            groups.append([""])
        elif token == _STAR:
            groups[-1].append("")
        else:
            groups[-1][-1] += token
    last = len(groups) - 1
    found = ""
    for number, (boundary, parts) in enumerate(zip(boundaries, groups, strict=True)):
        first, *rest = parts
        group = boundary + first + "".join(f"(?>[^/]*?{part})" for part in rest[:-1])
        if rest:
            group += f"[^/]*{'' if number == last else '?'}{rest[-1]}"
        # The first match of a group leaves the most for those after it.
        found += group if number == last else f"(?>{group})"
    return found
