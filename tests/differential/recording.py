"""What docker gave, written down: ``recorded/CHAPTER.json``, a table of facts by the case's name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import NamedTuple

from tests.differential.facts import Facts, Result, differing

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded"
DIFFERENCES = HERE / "differences.toml"
DOCKER = "20.10.24+dfsg1"
"""The version of docker that was recorded, with its own BuildKit."""


class Everywhere(NamedTuple):
    """A difference that has one reason in every case that shows it: the fact, and both values ("" is absent)."""

    fact: str
    minidock: str
    docker: str
    reason: str
    seen_in: str


class Difference(NamedTuple):
    """What differs in some cases and why: ``minidock`` is its value by "CASE: FACT"; docker's is the recorded one."""

    reason: str
    minidock: dict[str, str]


class Differences(NamedTuple):
    """The whole list."""

    everywhere: list[Everywhere]
    listed: list[Difference]

    def of_case(self, name: str) -> dict[str, str]:
        """Minidock's values by fact, of those that are listed for a case."""
        mark = f"{name}: "
        return {
            key.removeprefix(mark): value
            for difference in self.listed
            for key, value in difference.minidock.items()
            if key.startswith(mark)
        }


def read_differences(path: Path = DIFFERENCES) -> Differences:
    """The list of the file."""
    raw = tomllib.loads(path.read_text())
    return Differences(
        [Everywhere(**entry) for entry in raw.get("everywhere", [])],
        [Difference(**entry) for entry in raw.get("difference", [])],
    )


def read_recording(folder: Path = RECORDED) -> dict[str, Result]:
    """What was recorded, by the case's name."""
    found: dict[str, Result] = {}
    for path in sorted(folder.glob("*.json")):
        for name, entry in json.loads(path.read_text()).items():
            message = entry.pop("message", "")
            found[f"{path.stem}/{name}"] = Result(entry, message)
    return found


def record(name: str, result: Result, folder: Path = RECORDED) -> None:
    """Write a case's result down."""
    chapter, _, short = name.partition("/")
    path = folder / f"{chapter}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[short] = dict(sorted(result.facts.items()), **({"message": result.message} if result.message else {}))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(sorted(known.items())), ensure_ascii=False, indent=1) + "\n")


class Comparison(NamedTuple):
    """``unlisted`` are differences without a reason, ``gone`` listed ones that are none, or others, any more."""

    unlisted: list[str]
    gone: list[str]


def compare(name: str, minidock: Facts, docker: Facts, differences: Differences) -> Comparison:
    """Compare what both gave for the case ``name``."""
    listed = differences.of_case(name)
    everywhere = {(rule.fact, rule.minidock, rule.docker) for rule in differences.everywhere}
    unlisted: list[str] = []
    found: set[str] = set()
    for fact in differing(minidock, docker):
        one, other = minidock.get(fact, ""), docker.get(fact, "")
        if listed.get(fact) == one:
            found.add(fact)
        elif (_kind(fact), one, other) not in everywhere:
            unlisted.append(f"{fact}: minidock {one!r}, docker {other!r}")
    return Comparison(unlisted, sorted(f"{fact}: {listed[fact]}" for fact in listed if fact not in found))


def _kind(fact: str) -> str:
    """A fact's name as ``everywhere`` has it: a line of the history without its number."""
    words = fact.split(" ")
    return " ".join([words[0], *words[2:]]) if words[0] == "history" else fact
