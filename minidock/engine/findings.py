"""What the verbs give back that look for damage."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """Something that is wrong: ``what`` is a clause that tells people, ``remedy`` another that says what was done about
    it or can be done, or is empty. One that is ``repaired`` is none any more."""

    what: str
    remedy: str = ""
    repaired: bool = False


class Verdict(NamedTuple):
    """What a look at an image found: ``names`` are familiar ones; ``problems`` is empty when all is well."""

    id: str
    names: tuple[str, ...]
    problems: tuple[Problem, ...]


class Unneeded(NamedTuple):
    """What nothing needs, and the next removal of an image takes along: blobs with their bytes, and layers."""

    blobs: int = 0
    size: int = 0
    layers: int = 0


class CheckResult(NamedTuple):
    """What a look at a data root found, and how much was looked at; ``size`` is the bytes of the blobs."""

    problems: tuple[Problem, ...]
    images: int
    containers: int
    blobs: int
    size: int
    unneeded: Unneeded

    @property
    def left(self) -> int:
        """How many of the problems are still there."""
        return sum(not problem.repaired for problem in self.problems)
