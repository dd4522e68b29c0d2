"""The command ``minidock``: finds the command, runs it, and turns what went wrong into a sentence and a status."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from minidock.cli import quick
from minidock.cli.declare import GLOBAL_OPTIONS, Command, Group, read_values, version_line
from minidock.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
BROKEN_PIPE = 141
_COLLECT_AFTER = 50_000


def main() -> NoReturn:
    """The console script: run the process's command line and end the process with its status."""
    status = run_line(sys.argv[1:])
    from minidock.engine.leaving import leave

    leave(status)


def run_line(line: Sequence[str]) -> int:
    """Run a command line and return its exit status, with everything written that is to be written."""
    # Imports make many objects and no garbage: the collector's usual pace costs a run 5 % of its time.
    gc.set_threshold(_COLLECT_AFTER)
    _open_missing_streams()
    _tolerate_any_text()
    try:
        try:
            status = run(list(line))
        except KeyboardInterrupt:
            status = INTERRUPTED
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        _silence_output()
        return BROKEN_PIPE
    except OSError as error:
        error.filename = error.filename or "standard output"
        _silence_output()
        return _report(error, debug=False)
    return status


def run(line: list[str]) -> int:
    """Run a command line; failures are reported and become its status."""
    try:
        plain = _read_quickly(line)
        if plain is not None:
            return run_command(*plain)
        from minidock.cli import click_reader

        return click_reader.run(_for_click(line), load=load, members=command_modules(), run_command=run_command)
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:
        options = quick.read_options(GLOBAL_OPTIONS, line, flags_stop=True)
        return _report(error, debug=options is not None and options[0]["debug"])


def run_command(command: Command, global_values: dict[str, Any], values: dict[str, Any]) -> int:
    """Run one command that has been read; a failure is reported and becomes the status that the command gives it."""
    session = Session(global_values)
    try:
        return command.execute(session, **read_values(command, values))
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:
        return _report(error, debug=session.debug, otherwise=command.failure_status)


def load(module: str) -> Command | Group:
    """The declaration in a module of ``cli/commands``."""
    found = __import__(f"minidock.cli.commands.{module}", fromlist=["COMMAND"])
    declared: Command | Group = found.GROUP if hasattr(found, "GROUP") else found.COMMAND
    return declared


def command_modules() -> dict[str, str]:
    """The commands at the top and their modules: the files of ``cli/commands`` whose name joins no words.

    A trailing underscore keeps a module's name apart from Python's own words.
    """
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "commands")
    stems = [entry[:-3] for entry in os.listdir(folder) if entry.endswith(".py")]
    return {stem.rstrip("_"): stem for stem in stems if "_" not in stem.rstrip("_") and stem != "__init__"}


def _read_quickly(line: list[str]) -> tuple[Command, dict[str, Any], dict[str, Any]] | None:
    """The command of a plain command line with the global values and its own; None where click has to read it."""
    options = quick.read_options(GLOBAL_OPTIONS, line, flags_stop=True)
    if options is None:
        return None
    global_values, rest = options
    if global_values["version"]:
        return Command("version", "", _print_version), global_values, {}
    declared: Command | Group = Group("minidock", "", command_modules())
    while isinstance(declared, Group):
        if not rest or rest[0] not in declared.members:
            return None
        declared, rest = load(declared.members[rest[0]]), rest[1:]
    values = quick.read(declared, rest)
    return None if values is None else (declared, global_values, values)


def _for_click(line: list[str]) -> list[str]:
    """The command line as click takes it: ``help COMMAND`` is ``COMMAND --help``, and so is nothing at all."""
    options = quick.read_options(GLOBAL_OPTIONS, line, flags_stop=True)
    if options is not None and options[1][:1] in ([], ["help"]):
        return [*options[1][1:], "--help"]
    return line


def _print_version(session: Session) -> int:
    session.print(version_line())
    return 0


def _report(error: Exception, *, debug: bool, otherwise: int = 1) -> int:
    from minidock.cli.report import report
    from minidock.errors import InvalidReferenceError

    sys.stdout.flush()
    status = report(error, debug=debug)
    return otherwise if status == 1 or isinstance(error, InvalidReferenceError) else status


def _tolerate_any_text() -> None:
    """Names of files and volumes need not be valid text: print them escaped rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _open_missing_streams() -> None:
    """Open nothing in the place of a standard stream that is closed.

    Else the next file that is opened gets its number, and what is printed goes into that file.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != fd:
                os.dup2(nothing, fd)
                os.close(nothing)
            os.set_inheritable(fd, True)
            setattr(sys, name, os.fdopen(fd, mode, encoding="utf-8", closefd=False))


def _silence_output() -> None:
    """Point standard output at nothing, so that the interpreter's last flush meets no closed pipe."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


if __name__ == "__main__":
    main()
