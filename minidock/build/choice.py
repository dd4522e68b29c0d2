"""What of a directory's content is selected where that is not all: ignore rules, ``--exclude`` and ``--parents``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.dockerfile.ignore import IgnoreRules

# What becomes of an entry: it is left out; it is a directory that stays for what is below it only; it is taken.
LEFT_OUT = 0
PASSED = 1
TAKEN = 2


class Named(Protocol):
    """Something in a directory."""

    @property
    def name(self) -> str: ...


_Entry = TypeVar("_Entry", bound=Named)


class Choice(Protocol):
    """A choice among what is in a directory; paths are relative to that."""

    def only(self, directory: str) -> str:
        """The one name in a directory that can be chosen, so that it need not be listed; empty for any."""

    def verdict(self, path: str, *, is_directory: bool) -> int:
        """What becomes of an entry whose parents were all taken or passed: LEFT_OUT, PASSED or TAKEN."""


class Ignoring:
    """The choice of ignore rules, which see paths with the directory ``above`` before them."""

    __slots__ = ("_above", "_rules")

    def __init__(self, rules: IgnoreRules, above: str) -> None:
        self._rules = rules
        self._above = f"{above}/" if above else ""

    def only(self, directory: str) -> str:
        del directory
        return ""

    def verdict(self, path: str, *, is_directory: bool) -> int:
        full = self._above + path
        if not self._rules.matches(full):
            return TAKEN
        return PASSED if is_directory and not self._rules.prunes(full) else LEFT_OUT


def choose(
    above: str, entries: list[_Entry], directories: set[str], choices: Sequence[Choice], passed: set[str]
) -> None:
    """Leave out of the ``entries`` of the directory ``above`` what not all of ``choices`` take or pass, and of its
    ``directories`` those that need not be walked; add the paths of what is but passed to ``passed``."""
    prefix = f"{above}/" if above else ""
    for choice in choices:
        verdict_of, kept = choice.verdict, []
        for entry in entries:
            name = entry.name
            verdict = verdict_of(prefix + name, is_directory=name in directories)
            if verdict == TAKEN:
                kept.append(entry)
            elif verdict == PASSED:
                passed.add(prefix + name)
                kept.append(entry)
            else:
                directories.discard(name)
                passed.discard(prefix + name)
        entries[:] = kept
