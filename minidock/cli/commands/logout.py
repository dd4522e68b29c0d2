"""``minidock logout``: forget the credentials of a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, server: str | None) -> int:
    name = server or "docker.io"
    if session.engine.logout(server or ""):
        session.print(f"Removing login credentials for {name}")
    else:
        session.print(f"Not logged in to {name}")
    return 0


COMMAND = Command(
    "logout",
    "Log out of a registry.",
    execute,
    arguments=(Argument("SERVER", what="HOST[:PORT]; Docker Hub if not given", optional=True),),
)
