"""``minidock run``: create a container, start it, and stay with it until it exits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli.container_flags import ARGUMENTS, NOT_YET, OPTIONS, create_options
from minidock.cli.declare import Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, image: str, command: tuple[str, ...], detach: bool, **flags: Any) -> int:
    """Run the container and end with its status, or leave it running and print its ID."""
    options = create_options(flags)
    if detach:
        session.print(session.engine.run(image, *command, detach=True, **options).id)
        return 0
    if flags["tty"]:
        from minidock.cli.terminal import require_terminal

        require_terminal(interactive=flags["interactive"])
    return session.engine.run(image, *command, stdin=0, stdout=1, stderr=2, **options).exit_code


COMMAND = Command(
    "run",
    "Create a container from an image and run a command in it.",
    execute,
    options=(Option(("-d", "--detach"), "Leave the container running and print its ID."), *OPTIONS),
    arguments=ARGUMENTS,
    flags_stop=True,
    failure_status=125,
    not_yet=NOT_YET,
)
