"""The quick reader: well-formed command lines, without click.

It reads what click would read and to the same values, or gives up with None: an unknown flag, a missing argument,
``--help`` and whatever else is not plain is click's to read and to word. A property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minidock.cli.declare import SWITCH_VALUES, Argument, Command, Option, defaults


def read(command: Command, args: Sequence[str]) -> dict[str, Any] | None:
    """The raw values of a command line, or None if click has to look at it."""
    options = read_options(command.options, args, flags_stop=command.flags_stop)
    if options is None:
        return None
    values, rest = options
    arguments = _assign(command.arguments, rest)
    return None if arguments is None else {**values, **arguments}


def read_options(
    options: tuple[Option, ...], args: Sequence[str], *, flags_stop: bool
) -> tuple[dict[str, Any], list[str]] | None:
    """The options' values and the remaining arguments; with ``flags_stop`` the first argument ends the options."""
    by_flag = {flag: option for option in options for flag in option.flags}
    values = defaults(options)
    rest: list[str] = []
    index = 0
    while index < len(args):
        arg = args[index]
        index += 1
        if arg == "--":
            return values, rest + list(args[index:])
        if not arg.startswith("-") or arg == "-":
            if flags_stop:
                return values, list(args[index - 1 :])
            rest.append(arg)
            continue
        following = args[index] if index < len(args) else None
        take = _long if arg.startswith("--") else _cluster
        used = take(arg, following, by_flag, values)
        if used is None:
            return None
        index += used
    return values, rest


def _long(arg: str, following: str | None, by_flag: dict[str, Option], values: dict[str, Any]) -> int | None:
    """Read ``--name``, ``--name value`` or ``--name=value``: how many further arguments it used, None to give up."""
    name, equals, value = arg.partition("=")
    option = by_flag.get(name)
    if option is None:
        return None
    if not option.metavar:
        return _switch(option, value, values) if equals else _switch(option, "true", values)
    return _store(option, value if equals else following, values, used=0 if equals else 1)


def _switch(option: Option, value: str, values: dict[str, Any]) -> int | None:
    """Set a switch as ``--rm``, ``--rm=true`` or ``--rm=false`` say; None for any other value."""
    if value not in SWITCH_VALUES:
        return None
    values[option.key] = SWITCH_VALUES[value]
    return 0


def _cluster(arg: str, following: str | None, by_flag: dict[str, Option], values: dict[str, Any]) -> int | None:
    """Read ``-it``, ``-e value``, ``-evalue`` or ``-e=value``: how many further arguments it used, None to give up."""
    if arg in by_flag and len(arg) > 2:
        return None
    for position in range(1, len(arg)):
        option = by_flag.get(f"-{arg[position]}")
        if option is None:
            return None
        if option.metavar:
            attached = arg[position + 1 :]
            if attached.startswith("="):
                return _store(option, attached[1:], values, used=0)
            return _store(option, attached or following, values, used=0 if attached else 1)
        if arg[position + 1 : position + 2] == "=":
            return _switch(option, arg[position + 2 :], values)
        values[option.key] = True
    return 0


def _store(option: Option, value: str | None, values: dict[str, Any], *, used: int) -> int | None:
    if value is None:
        return None
    values[option.key] = (*values[option.key], value) if option.many else value
    return used


def _assign(arguments: tuple[Argument, ...], rest: list[str]) -> dict[str, Any] | None:
    values: dict[str, Any] = {}
    for argument in arguments:
        if argument.many:
            if not rest and not argument.optional:
                return None
            values[argument.key], rest = tuple(rest), []
        elif rest:
            values[argument.key], rest = rest[0], rest[1:]
        elif argument.optional:
            values[argument.key] = None
        else:
            return None
    return None if rest else values
