"""What a command is handed: the engine, and where its output goes."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from minidock.engine.engine import Engine


class Session:
    """One invocation of the command line.

    ``engine`` is made when it is first asked for: a command line that is refused touches nothing.
    """

    __slots__ = ("_engine", "_values", "debug")

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self.debug = bool(values.get("debug"))
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = make_engine(self._values)
        return self._engine

    def be_verbose(self) -> None:
        """As if ``--debug`` had been given; before the engine is made."""
        self._values["debug"] = self.debug = True

    def print(self, text: str) -> None:
        """One line on standard output."""
        try:
            sys.stdout.write(f"{text}\n")
        except OSError as error:
            if error.errno != errno.EPIPE:
                error.filename = error.filename or "standard output"
            raise

    def print_error(self, text: str) -> None:
        """One line on standard error."""
        sys.stderr.write(f"{text}\n")

    def confirm(self, warning: str) -> bool:
        """Ask on standard error before something is destroyed; anything but yes is no."""
        self.print_error(warning)
        sys.stderr.write("Are you sure you want to continue? [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer.endswith("\n"):
            self.print_error("")
        return answer.strip().lower() in ("y", "yes")

    def each(
        self, names: Iterable[str], act: Callable[[str], object], *, show: Callable[[Any], str] | None = None
    ) -> int:
        """Do ``act`` for every name and print the name, or what ``show`` makes of the result; 1 if any failed.

        A failure is reported and the rest is still done. A flag that makes no sense ends it: it is the same for all.
        """
        from minidock.errors import InvalidReferenceError, MinidockError, UsageError

        status = 0
        for name in names:
            try:
                require_name(name)
                result = act(name)
            except MinidockError as error:
                if isinstance(error, UsageError) and not isinstance(error, InvalidReferenceError):
                    raise
                sys.stdout.flush()
                self.report(error)
                status = 1
            else:
                self.print(show(result) if show else name)
        return status

    def report(self, error: BaseException) -> None:
        """Say on standard error what went wrong."""
        from minidock.cli.report import report

        report(error, debug=self.debug)


def require_name(name: str) -> None:
    """Raise MinidockError for an empty name: most often a variable of a shell that was never set."""
    if not name:
        from minidock.errors import MinidockError

        raise MinidockError("a name is empty", hint="give a name or an ID")


def make_engine(values: dict[str, Any]) -> Engine:
    """The engine for the values of the global options."""
    from minidock.engine.engine import Engine

    return Engine(
        values.get("root"),
        driver=values.get("storage_driver"),
        layers=values.get("layers"),
        debug=bool(values.get("debug")),
        may_fork=True,
    )
