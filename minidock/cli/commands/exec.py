"""``minidock exec``: run a further command in a running container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(
    session: Session,
    *,
    container: str,
    command: tuple[str, ...],
    detach: bool,
    interactive: bool,
    tty: bool,
    env: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    privileged: bool,
) -> int:
    if tty and not detach:
        from minidock.cli.terminal import require_terminal

        require_terminal(interactive=interactive)
    result = session.engine.exec(
        container,
        *command,
        detach=detach,
        stdin=0 if interactive else None,
        stdout=1,
        stderr=2,
        tty=tty,
        env=env,
        user=user or "",
        workdir=workdir or "",
        privileged=privileged,
    )
    return result.exit_code


COMMAND = Command(
    "exec",
    "Run a command in a running container.",
    execute,
    options=(
        Option(("-d", "--detach"), "Leave the command running."),
        Option(("-i", "--interactive"), "Keep standard input open."),
        Option(("-t", "--tty"), "Give the command a terminal."),
        Option(("-e", "--env"), "Set an environment variable.", "NAME[=VALUE]", many=True),
        Option(("-u", "--user"), "Run the command as this user.", "USER[:GROUP]"),
        Option(("-w", "--workdir"), "Start the command in this directory.", "DIR"),
        Option(("--privileged",), "Give the command all capabilities."),
    ),
    arguments=(Argument("CONTAINER"), Argument("COMMAND", many=True)),
    flags_stop=True,
    not_yet="--detach-keys --env-file",
)
