"""Checks of how instructions are written and used, and of files that .dockerignore leaves out."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from minidock.dockerfile.checks.subject import Check, Subject, word_of
from minidock.dockerfile.instructions import (
    SHELL_FORM,
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Label,
    Location,
    Maintainer,
    Workdir,
)
from minidock.dockerfile.lexer import is_directive

Found = Iterator[tuple[str, Location]]

_REMOTE = re.compile(r"(?:https?|git|ssh|ftp)://|git@[^/]+:")


def _empty_continuation(subject: Subject) -> Found:
    for warning in subject.dockerfile.warnings:
        yield warning.message, Location(warning.line, warning.line, "")


def _instruction_casing(subject: Subject) -> Found:
    places = [
        location
        for stage in subject.dockerfile.stages
        for location in (stage.location, *(instruction.location for instruction in stage.instructions))
    ]
    words = [word_of(place) for place in places]
    lower = sum(word == word.lower() for word in words) > sum(word == word.upper() for word in words)
    case, name = (str.lower, "lower") if lower else (str.upper, "upper")
    for place, word in zip(places, words, strict=True):
        if word != case(word):
            yield f"{word!r} should be {name}-case, as most of the instructions are", place


def _json_args(subject: Subject) -> Found:
    for view in subject.stages:
        for step in view.steps:
            found = step.written
            if isinstance(found, Cmd | Entrypoint) and found.form == SHELL_FORM and not step.shell_set:
                word = type(found).__name__.upper()
                yield f"{word} should be in JSON form: a shell does not pass signals on", found.location


def _maintainer(subject: Subject) -> Found:
    for stage in subject.dockerfile.stages:
        for instruction in stage.instructions:
            if isinstance(instruction, Maintainer):
                yield "MAINTAINER is deprecated: use LABEL org.opencontainers.image.authors", instruction.location


def _legacy_pairs(subject: Subject) -> Found:
    for view in subject.stages:
        for step in view.steps:
            if isinstance(step.written, Env | Label) and step.written.legacy:
                word = type(step.written).__name__.upper()
                yield f'"{word} key=value" should be written instead of "{word} key value"', step.written.location


def _relative_workdir(subject: Subject) -> Found:
    for view in subject.stages:
        for step in view.steps:
            # A variable of a base that is not known is still there.
            if isinstance(step.done, Workdir) and not step.workdir_set and not step.done.path.startswith(("/", "$")):
                message = f"the relative directory {step.done.path!r} depends on the WORKDIR of the base image"
                yield message, step.written.location


def _multiple_instructions(subject: Subject) -> Found:
    for view in subject.stages:
        before: dict[type, Location] = {}
        for step in view.steps:
            kind = type(step.written)
            if kind not in (Cmd, Entrypoint, Healthcheck):
                continue
            if kind in before:
                # The one before is the one that is lost.
                yield f"only the last {kind.__name__.upper()} of a stage counts, and there are several", before[kind]
            before[kind] = step.written.location


def _protocol_casing(subject: Subject) -> Found:
    for word, place in _ports(subject):
        protocol = word.partition("/")[2]
        if protocol != protocol.lower():
            yield f"the protocol of {word!r} in EXPOSE should be lower-case", place


def _port_mapping(subject: Subject) -> Found:
    for word, place in _ports(subject):
        if ":" in word:
            yield f"EXPOSE names a port of the container only, without address and port of the host: {word!r}", place


def _ports(subject: Subject) -> Found:
    for view in subject.stages:
        for step in view.steps:
            if isinstance(step.done, Expose):
                for word in step.done.words:
                    yield word, step.written.location


def _ignored_file(subject: Subject) -> Found:
    if subject.ignored is None:
        return
    for view in subject.stages:
        for step in view.steps:
            found = step.done
            if not isinstance(found, Copy | Add) or (isinstance(found, Copy) and found.from_):
                continue
            for source in found.sources:
                path = posixpath.normpath("/" + source).lstrip("/")
                if isinstance(found, Copy) and found.parents:
                    # Rules that leave out one depth need not leave out every depth that ** spans.
                    path = path.partition("**")[0].rpartition("/")[0] if "**" in path else path
                if path and not _REMOTE.match(source) and subject.ignored(path):
                    word = type(found).__name__.upper()
                    yield f"{word} of {source!r}, which .dockerignore leaves out", step.written.location


def _definition_description(subject: Subject) -> Found:
    for stage in subject.dockerfile.stages:
        if stage.name:
            yield from _described(subject, "FROM", [stage.name], stage.location)
    arguments = [
        *subject.dockerfile.global_args,
        *(found for stage in subject.dockerfile.stages for found in stage.instructions if isinstance(found, Arg)),
    ]
    for argument in arguments:
        yield from _described(subject, "ARG", [written.name for written in argument.args], argument.location)


def _described(subject: Subject, word: str, names: list[str], place: Location) -> Found:
    above = subject.dockerfile.source.text.split("\n")[place.line - 2].strip() if place.line > 1 else ""
    comment = above.removeprefix("#").strip()
    if not above.startswith("#") or not comment or is_directive(above):
        return
    if comment.split(" ")[0] not in names:
        name = names[0] if len(names) == 1 else "NAME"
        yield f"the comment above {word} should be a description, '# {name} ...', or stand apart", place


CHECKS = (
    Check("NoEmptyContinuation", "a continued line should not be empty", _empty_continuation),
    Check(
        "ConsistentInstructionCasing",
        "all instructions of a Dockerfile should have the same letter case",
        _instruction_casing,
    ),
    Check(
        "JSONArgsRecommended",
        "CMD and ENTRYPOINT in shell form do not get the signals that stop a container",
        _json_args,
    ),
    Check("MaintainerDeprecated", "MAINTAINER is deprecated, a label names the author", _maintainer),
    Check("LegacyKeyValueFormat", "a key and its value should be joined by '='", _legacy_pairs),
    Check(
        "WorkdirRelativePath",
        "a relative WORKDIR before an absolute one means another directory when the base image changes",
        _relative_workdir,
    ),
    Check(
        "MultipleInstructionsDisallowed",
        "CMD, ENTRYPOINT and HEALTHCHECK should stand once in a stage",
        _multiple_instructions,
    ),
    Check("ExposeProtoCasing", "the protocol in EXPOSE should be lower-case", _protocol_casing),
    Check("ExposeInvalidFormat", "EXPOSE should not map ports", _port_mapping),
    Check("CopyIgnoredFile", "COPY and ADD should not name what .dockerignore leaves out", _ignored_file),
    Check(
        "InvalidDefinitionDescription",
        "a comment right above FROM or ARG should describe it; one that does not should stand apart",
        _definition_description,
        experimental=True,
    ),
)
