"""One reader for each instruction: its flags and rest become the typed value, or a DockerfileError without a place."""

from __future__ import annotations

import re
from collections.abc import Callable

from minidock.dockerfile.copying import read_add, read_copy
from minidock.dockerfile.durations import parse_duration
from minidock.dockerfile.heredoc import heredoc_word
from minidock.dockerfile.instructions import (
    EXEC_FORM,
    SHELL_FORM,
    Arg,
    ArgDefault,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Form,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Pair,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from minidock.dockerfile.request import Request, make_request
from minidock.dockerfile.suggest import did_you_mean
from minidock.dockerfile.words import json_form, split_blanks, split_instruction, split_words
from minidock.errors import DockerfileError

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_RETRIES = re.compile(r"\+?[0-9]{1,10}")
_MOST_RETRIES = 2**31 - 1
_NETWORKS = ("default", "none", "host")
_SECURITIES = ("sandbox", "insecure")
_NOT_TRIGGERS = ("FROM", "MAINTAINER", "ONBUILD")


def read_from(request: Request) -> From:
    """Read ``FROM``."""
    flags = request.known_flags(["platform"])
    words = split_blanks(request.needs_rest())
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise DockerfileError(
                f"invalid name of a build stage {words[2]!r}",
                hint="a name begins with a letter and holds letters, digits, '-', '_' and '.'",
            )
    elif len(words) != 1:
        raise DockerfileError("FROM requires either one or three arguments", hint="write FROM IMAGE [AS NAME]")
    return From(words[0], name, flags.text("platform"), request.location)


def read_instruction(request: Request) -> Instruction:
    """Read any instruction but FROM; an unknown word is an error with a suggestion."""
    reader = _READERS.get(request.word)
    if reader is None:
        word, _ = split_instruction(request.location.text)
        raise DockerfileError(f"unknown instruction: {word}", hint=did_you_mean(word, KNOWN))
    return reader(request)


def _command(request: Request) -> tuple[Form, tuple[str, ...], str]:
    args = json_form(request.rest)
    return (SHELL_FORM, (), request.rest) if args is None else (EXEC_FORM, args, "")


def _run(request: Request) -> Run:
    flags = request.known_flags(["network", "security"], repeated=["mount", "device"])
    for name, allowed in (("network", _NETWORKS), ("security", _SECURITIES)):
        if flags.text(name) not in ("", *allowed):
            raise DockerfileError(
                f"unknown value {flags.text(name)!r} of the flag --{name}", hint=f"it is one of {', '.join(allowed)}"
            )
    if flags.texts("mount"):
        from minidock.dockerfile.run_mounts import check_mount

        for mount in flags.texts("mount"):
            check_mount(mount)
    request.needs_rest()
    form, args, text = _command(request)
    if form == EXEC_FORM and not args:
        raise DockerfileError("RUN requires at least one argument, and the array is empty")
    return Run(
        form,
        args,
        text,
        request.location,
        heredocs=request.heredocs,
        mounts=flags.texts("mount"),
        network=flags.text("network"),
        security=flags.text("security"),
        devices=flags.texts("device"),
        flags=request.flags,
        whole_heredoc=bool(request.heredocs) and heredoc_word(text) is not None,
    )


def _cmd(request: Request) -> Cmd:
    request.known_flags()
    _needs_command(request)
    return Cmd(*_command(request), request.location)


def _entrypoint(request: Request) -> Entrypoint:
    request.known_flags()
    _needs_command(request)
    return Entrypoint(*_command(request), request.location)


def _needs_command(request: Request) -> None:
    if not request.rest:
        raise DockerfileError(f"{request.word} requires at least one argument", hint=f"{request.word} [] clears it")


def _shell(request: Request) -> Shell:
    request.known_flags()
    args = json_form(request.needs_rest())
    if args is None:
        raise DockerfileError(
            f"SHELL requires the arguments to be in JSON form, not {request.rest[:80]}", hint='write ["/bin/sh", "-c"]'
        )
    if not args:
        raise DockerfileError("SHELL requires at least one argument, and the array is empty")
    return Shell(args, request.location)


def _pairs(request: Request) -> tuple[tuple[Pair, ...], bool]:
    """The pairs of ENV and LABEL, and whether they are in the old form without ``=``."""
    request.known_flags()
    rest = request.needs_rest()
    words, _ = split_words(rest, escape=request.escape)
    if not words:
        raise DockerfileError(f"{request.word} requires at least one argument")
    if "=" not in words[0]:
        name, value = split_instruction(rest)
        if not value:
            raise DockerfileError(f"{request.word} must have two arguments", hint=f"write {request.word} {name}=VALUE")
        return (Pair(name, value),), True
    pairs: list[Pair] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(
                f"{request.word} has no = in {word[:80]!r}", hint="write name=value, and quote a value with blanks"
            )
        if name in ("", '""', "''"):
            raise DockerfileError(f"{request.word} names can not be blank")
        pairs.append(Pair(name, value))
    return tuple(pairs), False


def _env(request: Request) -> Env:
    pairs, legacy = _pairs(request)
    return Env(pairs, request.location, legacy)


def _label(request: Request) -> Label:
    pairs, legacy = _pairs(request)
    return Label(pairs, request.location, legacy)


def _arg(request: Request) -> Arg:
    request.known_flags()
    words, _ = split_words(request.needs_rest(), escape=request.escape)
    found: list[ArgDefault] = []
    for word in words:
        name, equals, default = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        found.append(ArgDefault(name, default if equals else None))
    if not found:
        raise DockerfileError("ARG requires at least one argument")
    return Arg(tuple(found), request.location)


def _workdir(request: Request) -> Workdir:
    request.known_flags()
    return Workdir(request.needs_rest(), request.location)


def _user(request: Request) -> User:
    request.known_flags()
    return User(request.needs_rest(), request.location)


def _stopsignal(request: Request) -> Stopsignal:
    request.known_flags()
    return Stopsignal(request.needs_rest(), request.location)


def _maintainer(request: Request) -> Maintainer:
    request.known_flags()
    return Maintainer(request.needs_rest(), request.location)


def _volume(request: Request) -> Volume:
    request.known_flags()
    args = json_form(request.needs_rest())
    paths = split_blanks(request.rest) if args is None else args
    if not paths:
        raise DockerfileError("VOLUME requires at least one argument, and the array is empty")
    if not all(path.strip() for path in paths):
        raise DockerfileError("VOLUME can not be an empty path")
    return Volume(paths, request.location)


def _expose(request: Request) -> Expose:
    request.known_flags()
    return Expose(split_blanks(request.needs_rest()), request.location)


def _healthcheck(request: Request) -> Healthcheck:
    flags = request.known_flags(["interval", "timeout", "start-period", "start-interval", "retries"])
    kind, rest = split_instruction(request.needs_rest())
    kind = kind.upper()
    if kind == "NONE":
        if rest or request.flags:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments and no flags")
        return Healthcheck(("NONE",), request.location)
    if kind != "CMD":
        raise DockerfileError(
            f"unknown type {kind[:80]!r} in HEALTHCHECK", hint="write HEALTHCHECK CMD COMMAND or NONE"
        )
    args = json_form(rest)
    if not rest or args == ():
        raise DockerfileError("missing command after HEALTHCHECK CMD")
    retries = flags.text("retries") or "0"
    if not _RETRIES.fullmatch(retries) or int(retries) > _MOST_RETRIES:
        raise DockerfileError(f"the flag --retries takes a number that is not negative, not {retries!r}")
    return Healthcheck(
        ("CMD-SHELL", rest) if args is None else ("CMD", *args),
        request.location,
        interval=_interval(flags.text("interval"), "interval"),
        timeout=_interval(flags.text("timeout"), "timeout"),
        start_period=_interval(flags.text("start-period"), "start-period"),
        start_interval=_interval(flags.text("start-interval"), "start-interval"),
        retries=int(retries),
    )


def _interval(text: str, flag: str) -> int:
    duration = parse_duration(text, what=f"the flag --{flag}") if text else 0
    if duration and duration < 1_000_000:
        raise DockerfileError(f"the flag --{flag} can not be less than 1ms, but is {text}")
    return duration


def _onbuild(request: Request) -> Onbuild:
    request.known_flags()
    line = request.needs_rest()
    # Flags after ONBUILD belong to the trigger, so the trigger is the line without its first word.
    inner = make_request(line, heredocs=request.heredocs, location=request.location, escape=request.escape)
    if inner.word in _NOT_TRIGGERS:
        raise DockerfileError(f"{inner.word} isn't allowed as an ONBUILD trigger")
    trigger = read_instruction(inner._replace(location=request.location._replace(text=line)))
    text = line + "".join(f"\n{heredoc.body}{heredoc.name}" for heredoc in request.heredocs)
    return Onbuild(text, trigger, request.location)


_READERS: dict[str, Callable[[Request], Instruction]] = {
    "ADD": read_add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": read_copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}

KNOWN = ("FROM", *_READERS)
