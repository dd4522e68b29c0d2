"""``minidock image bootstrap``: a base image from what the host has, without a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option, read_reference

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, image: str, tag: str | None, force: bool, quiet: bool) -> int:
    session.print(session.engine.bootstrap(image, name=tag or "", force=force, quiet=quiet).id)
    return 0


COMMAND = Command(
    "bootstrap",
    "Make a base image: busybox, or debian[:SUITE] from the host's apt sources.",
    execute,
    options=(
        Option(("-t", "--tag"), "Name the image so instead.", "NAME[:TAG]", read=read_reference),
        Option(("-f", "--force"), "Make it anew where there is one already."),
        Option(("-q", "--quiet"), "Print the image's ID only."),
    ),
    arguments=(Argument("IMAGE", what="busybox or debian[:SUITE]"),),
)
