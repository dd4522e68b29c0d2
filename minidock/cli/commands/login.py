"""``minidock login``: keep credentials of a registry."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option
from minidock.errors import UsageError

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(
    session: Session, *, server: str | None, username: str | None, password: str | None, password_stdin: bool
) -> int:
    """Ask for what is not given, on a terminal; try it, keep it, and say where."""
    if password is not None and password_stdin:
        raise UsageError("--password and --password-stdin exclude each other")
    if password_stdin and not username:
        raise UsageError("--password-stdin needs --username")
    if password is not None:
        session.print_error("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    user = username or _ask("Username: ", hidden=False)
    if password_stdin:
        secret = sys.stdin.read().rstrip("\r\n")
    else:
        secret = _ask("Password: ", hidden=True) if password is None else password
    where = session.engine.login(server or "", user, secret)
    session.print(f"Login Succeeded, kept in {where}")
    return 0


def _ask(prompt: str, *, hidden: bool) -> str:
    if not sys.stdin.isatty():
        raise UsageError("cannot ask for credentials without a terminal", hint="give --username and --password-stdin")
    if hidden:
        import getpass

        return getpass.getpass(prompt)
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


COMMAND = Command(
    "login",
    "Log in to a registry.",
    execute,
    options=(
        Option(("-u", "--username"), "The user's name.", "NAME"),
        Option(("-p", "--password"), "The password; other users of this machine can see it here.", "PASSWORD"),
        Option(("--password-stdin",), "Read the password from standard input."),
    ),
    arguments=(Argument("SERVER", what="HOST[:PORT]; Docker Hub if not given", optional=True),),
)
