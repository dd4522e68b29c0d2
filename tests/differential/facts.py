"""What a build came to, as plain facts that can be compared, written down and read."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

Facts = dict[str, str]
"""Values by fact: outcome, "tree PATH", "config KEY", "history N" and so on; an absent one is as good as ""."""

BUILT = "built"
FAILED = "failed"
_STAND = "bin/busybox"
_PLACE = re.compile(r"^(?:\S*/)?[Dd]ockerfile:([0-9]+)$", re.MULTILINE)
_PARSE_ERROR = re.compile(r"parse error (?:on )?line ([0-9]+)", re.IGNORECASE)
_STEP = re.compile(r"^ > (?:\[[^\]]*\] )?([A-Z].*?):?$", re.MULTILINE)
_PROGRESS = re.compile(r"#[0-9]+ |$")
_CHANCE = re.compile(r"\b[0-9a-z]{25,64}\b|(?<=mount)[0-9]{5,}|/\S*/minidock-\w{8}(?=/)")
_EXIT = re.compile(r"exit code: ([0-9]+)")


class Result(NamedTuple):
    """What a builder gave: facts, and of a failure what it said."""

    facts: Facts
    message: str = ""


def image_facts(config: dict[str, Any], tree: dict[str, str], base: dict[str, Any], beneath: dict[str, str]) -> Facts:
    """The facts of an image. ``base`` and ``beneath`` are configuration and tree of the image that every case may stand
    on: what is as it is there is left out."""
    facts = {"outcome": BUILT}
    stands = tree.get(_STAND) == beneath[_STAND]
    facts["stands on"] = "busybox" if stands else "nothing"
    known = beneath if stands else {}
    for path, text in tree.items():
        if known.get(path) != text:
            facts[f"tree {path}"] = text
    for path in known:
        if path not in tree:
            facts[f"tree {path}"] = "removed"
    for key, value in (config.get("config") or {}).items():
        # Docker writes fields that say nothing, too.
        if value not in (None, "", False, 0, [], {}):
            facts[f"config {key}"] = _json(value)
    facts["platform"] = "the base's" if _platform(config) == _platform(base) else _platform(config)
    if config.get("author"):
        facts["author"] = config["author"]
    history = config.get("history") or []
    skipped = len(base["history"]) if history[: len(base["history"])] == base["history"] else 0
    for number, entry in enumerate(history[skipped:], 1):
        facts[f"history {number}"] = entry.get("created_by", "")
        for name in ("comment", "author"):
            if entry.get(name):
                facts[f"history {number} {name}"] = entry[name]
    return facts


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _platform(config: dict[str, Any]) -> str:
    return "/".join(str(config[key]) for key in ("os", "architecture", "variant") if config.get(key))


def message_of(output: str) -> str:
    """What a builder said of a failure, without the progress and without names that are others each time."""
    lines = [line.rstrip() for line in output.splitlines() if not _PROGRESS.match(line)]
    return _CHANCE.sub("...", "\n".join(lines).strip())


def failure_facts(message: str, dockerfile: str) -> Facts:
    """The facts of a failure: at which line of the Dockerfile, where that is said, and the command's exit status."""
    place = _PLACE.search(message) or _PARSE_ERROR.search(message)
    line = int(place.group(1)) if place else _line_of_step(message, dockerfile)
    facts = {"outcome": f"{FAILED} at line {line}" if line else FAILED}
    status = _EXIT.search(message)
    if status:
        facts["exit status"] = status.group(1)
    return facts


def _line_of_step(message: str, dockerfile: str) -> int:
    """The line of the instruction that a builder names by its text alone, 0 if there is none."""
    step = _STEP.search(message)
    if not step:
        return 0
    lines = [number for number, line in enumerate(dockerfile.splitlines(), 1) if line.strip() == step.group(1).strip()]
    return lines[0] if len(lines) == 1 else 0


def differing(one: Facts, other: Facts) -> list[str]:
    """The facts that are not equal; of builds with different outcomes that one alone.

    Docker does not always say where a failure is, and then any place is as good.
    """
    if (one["outcome"] == BUILT) != (other["outcome"] == BUILT):
        return ["outcome"]
    if other["outcome"] == FAILED:
        one = {**one, "outcome": FAILED}
    return sorted(fact for fact in {**one, **other} if one.get(fact, "") != other.get(fact, ""))
