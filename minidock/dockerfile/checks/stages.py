"""Checks of FROM lines: names of stages, letter case, and the platform asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from minidock.dockerfile.checks.subject import Check, Subject, Watched, word_of, words_of_from
from minidock.dockerfile.expand import expand
from minidock.dockerfile.instructions import Location

Found = Iterator[tuple[str, Location]]

_RESERVED = ("scratch", "context")
_PLATFORM = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_.-]+){0,2}")
_SYSTEMS = ("linux", "windows", "darwin", "freebsd")
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}


def _stage_name_casing(subject: Subject) -> Found:
    for stage in subject.dockerfile.stages:
        words = words_of_from(stage)
        if len(words) == 3 and words[2] != words[2].lower():
            yield f"the stage name {words[2]!r} should be lower-case", stage.location


def _from_as_casing(subject: Subject) -> Found:
    for stage in subject.dockerfile.stages:
        words, word = words_of_from(stage), word_of(stage.location)
        # A FROM of mixed case is ConsistentInstructionCasing's.
        cases = [case for case in (str.lower, str.upper) if word == case(word)]
        if len(words) == 3 and cases and words[1] != cases[0](words[1]):
            yield f"{words[1]!r} and {word!r} should be of the same letter case", stage.location


def _duplicate_stage_name(subject: Subject) -> Found:
    seen: set[str] = set()
    for stage in subject.dockerfile.stages:
        if stage.name and stage.name in seen:
            yield f"the stage name {stage.name!r} stands for an earlier stage, too", stage.location
        seen.add(stage.name)


def _reserved_stage_name(subject: Subject) -> Found:
    for stage in subject.dockerfile.stages:
        if stage.name in _RESERVED:
            yield f"the stage name {stage.name!r} is reserved", stage.location


def _redundant_target_platform(subject: Subject) -> Found:
    target = subject.scope.get("TARGETPLATFORM")
    for stage in subject.dockerfile.stages:
        env = Watched(subject.scope)
        value = expand(stage.platform, env, escape=subject.dockerfile.escape)
        if [*env.found] == ["TARGETPLATFORM"] and not env.missed and value == target:
            yield f"{stage.platform} as the platform of FROM is redundant: it is the default", stage.location


def _constant_platform(subject: Subject) -> Found:
    for stage in subject.dockerfile.stages:
        env = Watched(subject.scope)
        value = expand(stage.platform, env, escape=subject.dockerfile.escape)
        if not env.found and not env.missed and not any(part in stage.name for part in _parts(value) or [""]):
            yield f"the platform of FROM should not be the constant {value!r}", stage.location


def _parts(platform: str) -> list[str]:
    """The operating system and the architecture that a platform names, nothing where it is none."""
    if not _PLATFORM.fullmatch(platform):
        return []
    first, _, rest = platform.lower().partition("/")
    if first in _SYSTEMS:
        architecture = rest.partition("/")[0]
        return [first, _ALIASES.get(architecture, architecture)] if architecture else [first]
    return ["linux", _ALIASES.get(first, first)]


def _base_image_platform(subject: Subject) -> Found:
    for view in subject.stages:
        expected, actual = view.facts.platform, view.facts.image_platform
        # A variant more or less is no mistake.
        if expected and actual and expected.split("/")[:2] != actual.split("/")[:2]:
            stage = view.facts.stage
            yield f"the base image {stage.base} is for {actual}, but this build is for {expected}", stage.location


CHECKS = (
    Check("StageNameCasing", "stage names should be lower-case", _stage_name_casing),
    Check("FromAsCasing", "AS should have the letter case of FROM", _from_as_casing),
    Check("DuplicateStageName", "stage names should be unique", _duplicate_stage_name),
    Check("ReservedStageName", "reserved words should not name stages", _reserved_stage_name),
    Check(
        "RedundantTargetPlatform",
        "FROM is for $TARGETPLATFORM without being told",
        _redundant_target_platform,
    ),
    Check(
        "FromPlatformFlagConstDisallowed",
        "the platform of FROM should come from a variable",
        _constant_platform,
    ),
    Check("InvalidBaseImagePlatform", "a base image should be for the platform of the build", _base_image_platform),
)
