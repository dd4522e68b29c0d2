"""Command lines through click: help pages, completion, and whatever the quick reader gives up on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from minidock.cli.declare import (
    GLOBAL_OPTIONS,
    SWITCH_VALUES,
    Argument,
    Command,
    Group,
    Option,
    closest,
    version_line,
)
from minidock.errors import UsageError

# Help pages are as wide as the terminal, up to this.
_PAGE = {"max_content_width": 100}

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
    top.epilog = "Run 'minidock help COMMAND' for what a command takes."
    top.options = GLOBAL_OPTIONS
    top.params = [_option(option) for option in GLOBAL_OPTIONS]
    try:
        result = top.main(args=args, prog_name="minidock", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        raise _usage_error(error) from None
    except click.Abort:
        raise KeyboardInterrupt from None


def _group(group: Group, load: Load, run_command: Run) -> _Group:
    class Members(_Group):
        def list_commands(self, _ctx: click.Context) -> list[str]:
            return sorted(group.members)

        def resolve_command(
            self, ctx: click.Context, args: list[str]
        ) -> tuple[str | None, click.Command | None, list[str]]:
            if args[0] not in group.members:
                near = closest(args[0], group.members)
                suggestion = f", did you mean {near}?" if near else ""
                raise _MisplacedError(f"there is no command {args[0]!r}{suggestion}", ctx)
            return super().resolve_command(ctx, args)

        def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name not in group.members:
                return None
            declared = load(group.members[cmd_name])
            if isinstance(declared, Group):
                return _group(declared, load, run_command)
            return _command(declared, cmd_name, run_command)

    return Members(
        group.name,
        help=group.summary,
        invoke_without_command=True,
        callback=_enter_group,
        subcommand_metavar="COMMAND",
        context_settings=_PAGE,
    )


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
        context_settings={"allow_interspersed_args": not declared.flags_stop, **_PAGE},
    )


class _MisplacedError(click.UsageError):
    """A word that is no command, or one argument too many or too few: no flag is wrong."""


class _Plain(click.Command):
    """A click command that takes what the quick reader takes, and whose complaints all say whose they are."""

    options: tuple[Option, ...] = ()
    flags_stop = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            plain, switches = _plain(self.options, args, ctx, flags_stop=self.flags_stop)
            rest = super().parse_args(ctx, plain)
            ctx.params.update(switches)
            return rest
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


class _Group(_Plain, click.Group):
    """A click group."""


class _Declared(_Plain):
    """A click command that remembers its declaration."""

    def __init__(self, declared: Command, **settings: Any) -> None:
        super().__init__(**settings)
        self.declared = declared
        self.options = declared.options
        self.flags_stop = declared.flags_stop


def _plain(
    options: tuple[Option, ...], args: list[str], ctx: click.Context, *, flags_stop: bool
) -> tuple[list[str], dict[str, bool]]:
    """The words of a command line as click takes them, without the value of a switch and with ``-x=value`` in two, and
    the switches by key as they stand at the end."""
    by_flag = {flag: option for option in options for flag in option.flags}
    plain: list[str] = []
    switches: dict[str, bool] = {}
    left = list(args)
    while left:
        arg = left.pop(0)
        if arg == "--" or (flags_stop and (arg == "-" or not arg.startswith("-"))):
            return [*plain, arg, *left], switches
        if not arg.startswith("-"):
            plain.append(arg)
            continue
        read = _plain_long if arg.startswith("--") else _plain_short
        words, needs_value = read(arg, by_flag, switches, ctx)
        plain += words
        if needs_value and left:
            plain.append(left.pop(0))
    return plain, switches


def _plain_long(
    arg: str, by_flag: dict[str, Option], switches: dict[str, bool], ctx: click.Context
) -> tuple[list[str], bool]:
    """The words for ``--name`` or ``--name=value``, and whether the next one is its value."""
    name, equals, value = arg.partition("=")
    option = by_flag.get(name)
    if option is None or option.metavar:
        return [arg], bool(option and not equals)
    switches[option.key] = _is_on(name, value, ctx) if equals else True
    return [name], False


def _plain_short(
    arg: str, by_flag: dict[str, Option], switches: dict[str, bool], ctx: click.Context
) -> tuple[list[str], bool]:
    """The words for ``-it``, ``-evalue``, ``-e=value`` or ``-it=true``, and whether the next one is its value."""
    for position in range(1, len(arg)):
        option = by_flag.get(f"-{arg[position]}")
        if option is None:
            break
        before, attached = arg[: position + 1], arg[position + 1 :]
        if option.metavar:
            return ([before, attached[1:]], False) if attached.startswith("=") else ([arg], not attached)
        switches[option.key] = True
        if attached.startswith("="):
            switches[option.key] = _is_on(f"-{arg[position]}", attached[1:], ctx)
            return [before], False
    return [arg], False


def _is_on(name: str, value: str, ctx: click.Context) -> bool:
    if value not in SWITCH_VALUES:
        raise click.BadParameter(f"invalid value {value!r} for {name}: use true or false", ctx)
    return SWITCH_VALUES[value]


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
        metavar=_metavar(argument),
        type=click.UNPROCESSED,
    )


def _metavar(argument: Argument) -> str:
    name = f"{argument.name}..." if argument.many else argument.name
    return f"[{name}]" if argument.optional else name


def _usage_error(error: click.UsageError) -> UsageError:
    """Click's complaint in minidock's words: one lower-case sentence, then the usage and where the help is."""
    context = error.ctx
    path = context.command_path if context else "minidock"
    declared = context.command.declared if context and isinstance(context.command, _Declared) else None
    usage = context.get_usage() if context else ""
    hint = f"{usage}\nrun '{path} --help' for what it takes"
    if isinstance(error, click.NoSuchOption):
        if declared and error.option_name in declared.not_yet.split():
            return UsageError(f"{error.option_name} is not there yet", hint=hint)
        options = context.command.options if context and isinstance(context.command, _Plain) else ()
        near = closest(error.option_name, [flag for option in options for flag in option.flags if flag[:2] == "--"])
        suggestion = f", did you mean {near}?" if near else ""
        return UsageError(f"unknown flag: {error.option_name}{suggestion}", hint=hint)
    if isinstance(error, click.BadOptionUsage):
        return UsageError(f"the flag {error.option_name} needs a value", hint=hint)
    if isinstance(error, click.MissingParameter) and error.param is not None and context is not None:
        message = f"missing argument: {(error.param.name or '').upper()}"
    else:
        message = str(getattr(error, "message", "")).rstrip(".")
    result = UsageError(message[:1].lower() + message[1:], hint=hint)
    if not isinstance(error, click.BadParameter) or isinstance(error, click.MissingParameter):
        # As in docker, 125 is for flags, and for whatever is wrong with ``run``.
        result.exit_status = declared.failure_status if declared else 1
    return result
