"""The rules of a .dockerignore file (and of ``COPY --exclude``).

Sources: Dockerfile reference, ".dockerignore files"; moby/patternmatcher for ``**`` and the order of the lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from minidock.dockerfile.excerpt import Source
from minidock.dockerfile.glob import has_meta, ignore_regex
from minidock.errors import DockerfileError


class IgnoreRules:
    """Which paths of a context are left out. A path is relative, ``/``-separated, without ``.``, ``..`` and end slash.

    The last matching line wins, and a line that matches a directory matches all below it; ``!`` re-includes, also below
    a directory that is left out.
    """

    __slots__ = ("_rules", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        """``patterns`` as lines of the file, ``!`` included. Raises DockerfileError for one that is malformed."""
        self.patterns = tuple(found for pattern in patterns if (found := _cleaned(pattern)))
        # Neighbours of one kind are one expression: the order matters only where the kind changes.
        runs: list[tuple[bool, list[str]]] = []
        for pattern in self.patterns:
            excludes = not pattern.startswith("!")
            if not runs or runs[-1][0] != excludes:
                runs.append((excludes, []))
            runs[-1][1].append(ignore_regex(pattern.removeprefix("!")))
        self._rules = tuple((excludes, re.compile("|".join(run), re.DOTALL)) for excludes, run in reversed(runs))

    @classmethod
    def parse(cls, text: str, *, filename: str = ".dockerignore") -> IgnoreRules:
        """Read a file's text: one pattern a line, ``#`` in the first column is a comment.

        Raises DockerfileError with the line of a malformed pattern.
        """
        source = Source(filename, text.removeprefix("\ufeff"))
        lines = source.text.split("\n")
        for number, line in enumerate(lines, 1):
            if not line.startswith("#"):
                try:
                    cls((line,))
                except DockerfileError as error:
                    raise source.error(error.message, number, hint=error.hint) from None
        return cls(line for line in lines if not line.startswith("#"))

    def matches(self, path: str) -> bool:
        """True if ``path`` is left out."""
        for excludes, regex in self._rules:
            if regex.match(path):
                return excludes
        return False

    def prunes(self, directory: str) -> bool:
        """True if ``directory`` and everything that can be below it is left out, so that it need not be walked."""
        if not self.matches(directory):
            return False
        return not any(_may_reach_below(p[1:], directory) for p in self.patterns if p.startswith("!"))


def _cleaned(pattern: str) -> str:
    """The pattern as it is matched: trimmed, cleaned as a path, one leading slash dropped; empty if it says nothing."""
    pattern = pattern.strip()
    negation = ""
    if pattern.startswith("!"):
        negation, pattern = "!", pattern[1:].strip()
        if not pattern:
            raise DockerfileError("a re-include rule has no pattern: '!'", hint="write !PATTERN")
    if not pattern:
        return ""
    names: list[str] = []
    for name in pattern.split("/"):
        if name == ".." and names and names[-1] != "..":
            names.pop()
        elif name == ".." and pattern.startswith("/"):
            continue
        elif name not in ("", "."):
            names.append(name)
    # A pattern that is the context itself is passed over, as it always was.
    return negation + "/".join(names) if names else ""


def _may_reach_below(pattern: str, directory: str) -> bool:
    """True unless the names before the pattern's first wildcard show that nothing below ``directory`` matches."""
    for wanted, name in zip(pattern.split("/"), directory.split("/"), strict=False):
        if has_meta(wanted):
            return True
        if wanted != name:
            return False
    return True
