"""Checks of variables: declared before they are used, defaults that make sense, and none that holds a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from minidock.dockerfile.checks.subject import Check, Subject, Watched
from minidock.dockerfile.expand import expand
from minidock.dockerfile.instructions import Arg, Env, Expose, Location
from minidock.dockerfile.suggest import did_you_mean
from minidock.errors import DockerfileError, InvalidReferenceError
from minidock.model.reference import parse_reference

Found = Iterator[tuple[str, Location]]

_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_HARMLESS = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


def _undefined_arg_in_from(subject: Subject) -> Found:
    dockerfile = subject.dockerfile
    known = {argument.name for instruction in dockerfile.global_args for argument in instruction.args}
    known.update(subject.scope)
    for stage in dockerfile.stages:
        env = Watched(subject.scope)
        for text in (stage.base, stage.platform):
            expand(text, env, escape=dockerfile.escape)
        for name in env.missed:
            if name not in known:
                yield f"the argument {name!r} of FROM is not declared{_meant(name, known)}", stage.location


def _invalid_default_arg_in_from(subject: Subject) -> Found:
    dockerfile = subject.dockerfile
    names: set[str] = set()
    for stage in dockerfile.stages:
        if "$" in stage.base and not _is_base(stage.base, subject, names):
            yield f"without --build-arg, {stage.base} is not the name of an image", stage.location
        names.add(stage.name)


def _is_base(base: str, subject: Subject, names: set[str]) -> bool:
    try:
        found = expand(base, subject.defaults, escape=subject.dockerfile.escape)
        if not found or found.lower() not in names:
            parse_reference(found)
    except (DockerfileError, InvalidReferenceError):
        return False
    return True


def _undefined_var(subject: Subject) -> Found:
    for view in subject.stages:
        for step in view.steps:
            # The ports of EXPOSE are words of their own, which an unset variable leaves out on purpose.
            if not isinstance(step.written, Expose):
                for name in step.undefined:
                    meant = _meant(name, step.known, prefix="$")
                    yield f"the variable '${name}' is used but not defined{meant}", step.written.location


def _meant(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    # What was meant is a slip of the pen away; a longer name that holds the letters, too, is not.
    hint = did_you_mean(name, (near for near in known if abs(len(near) - len(name)) <= 2), prefix=prefix)
    return f" ({hint})" if hint else ""


def _secrets(subject: Subject) -> Found:
    for view in subject.stages:
        for step in view.steps:
            if isinstance(step.done, Env):
                names = [pair.key for pair in step.done.pairs]
            elif isinstance(step.done, Arg):
                names = [argument.name for argument in step.done.args]
            else:
                continue
            word = type(step.done).__name__.upper()
            for name in names:
                if _SECRET.search(name) and not _HARMLESS.search(name):
                    yield f"do not hand secrets on in ARG or ENV ({word} {name!r})", step.written.location


CHECKS = (
    Check("UndefinedArgInFrom", "FROM should use declared arguments only", _undefined_arg_in_from),
    Check(
        "InvalidDefaultArgInFrom",
        "FROM should name an image with the defaults of its arguments, too",
        _invalid_default_arg_in_from,
    ),
    Check("UndefinedVar", "variables should be defined before they are used", _undefined_var),
    Check("SecretsUsedInArgOrEnv", "ARG and ENV should not hold what must stay secret", _secrets),
)
