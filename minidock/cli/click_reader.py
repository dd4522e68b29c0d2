"""Command lines through click: help pages, completion, and whatever the quick reader gives up on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from minidock.cli.declare import GLOBAL_OPTIONS, Argument, Command, Group, Option, version_line
from minidock.errors import UsageError

Load = Callable[[str], Command | Group]
Run = Callable[[Command, dict[str, Any], dict[str, Any]], int]


def run(args: list[str], *, load: Load, members: dict[str, str], run_command: Run) -> int:
    """Read ``args`` with click and run the command; return its status. Raises UsageError for what click refuses.

    ``load`` gives the declaration of a module in ``cli/commands``, ``members`` the modules of the commands at the top,
    and ``run_command`` runs one with the global values and its own.
    """
    top = _group(
        Group("minidock", "A container engine for one Linux host, without a daemon.", members), load, run_command
    )
    top.params = [_option(option) for option in GLOBAL_OPTIONS]
    try:
        result = top.main(args=args, prog_name="minidock", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        raise _usage_error(error) from None
    except click.Abort:
        raise KeyboardInterrupt from None


def _group(group: Group, load: Load, run_command: Run) -> click.Group:
    class Members(click.Group):
        def list_commands(self, _ctx: click.Context) -> list[str]:
            return sorted(group.members)

        def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name not in group.members:
                return None
            declared = load(group.members[cmd_name])
            if isinstance(declared, Group):
                return _group(declared, load, run_command)
            return _command(declared, cmd_name, run_command)

    return Members(group.name, help=group.summary, invoke_without_command=True, callback=_enter_group)


def _enter_group(**values: Any) -> None:
    """Runs before a sub-command: keeps the global values for it, and prints the help if there is none."""
    context = click.get_current_context()
    if context.parent is None:
        context.obj = values
        if values["version"]:
            click.echo(version_line())
            context.exit(0)
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _command(declared: Command, name: str, run_command: Run) -> click.Command:
    def callback(**values: Any) -> int:
        return run_command(declared, click.get_current_context().find_root().obj or {}, values)

    return _Declared(
        declared,
        name=name,
        callback=callback,
        params=[
            *(_option(option) for option in declared.options),
            *(_argument(argument) for argument in declared.arguments),
        ],
        help=declared.summary,
        short_help=declared.summary,
        context_settings={"allow_interspersed_args": not declared.flags_stop, "max_content_width": 100},
    )


class _Declared(click.Command):
    """A click command that remembers its declaration."""

    def __init__(self, declared: Command, **settings: Any) -> None:
        super().__init__(**settings)
        self.declared = declared


def _option(option: Option) -> click.Option:
    if not option.metavar:
        return click.Option([*option.flags, option.key], is_flag=True, help=option.help)
    return click.Option(
        [*option.flags, option.key],
        metavar=option.metavar,
        multiple=option.many,
        default=() if option.many else option.default,
        type=click.UNPROCESSED,
        help=option.help,
    )


def _argument(argument: Argument) -> click.Argument:
    return click.Argument(
        [argument.key],
        nargs=-1 if argument.many else 1,
        required=not argument.optional,
        metavar=argument.name,
        type=click.UNPROCESSED,
    )


def _usage_error(error: click.UsageError) -> UsageError:
    """Click's complaint in minidock's words: one lower-case sentence, then the usage and where the help is."""
    context = error.ctx
    path = context.command_path if context else "minidock"
    declared = context.command.declared if context and isinstance(context.command, _Declared) else None
    usage = context.get_usage() if context else ""
    hint = f"{usage}{os.linesep}run '{path} --help' for what it takes"
    if isinstance(error, click.NoSuchOption):
        if declared and error.option_name in declared.not_yet.split():
            return UsageError(f"{error.option_name} is not there yet", hint=hint)
        suggestion = f", did you mean {', '.join(error.possibilities)}?" if error.possibilities else ""
        return UsageError(f"unknown flag: {error.option_name}{suggestion}", hint=hint)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return UsageError(f"missing argument: {error.param.make_metavar(context)}" if context else "missing", hint=hint)
    message = error.format_message().rstrip(".")
    return UsageError(message[:1].lower() + message[1:], hint=hint)
