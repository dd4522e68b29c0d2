"""``minidock import``: an image of one layer from a tarball of a root file system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(session: Session, *, tar: str, name: str | None, message: str | None) -> int:
    image = session.engine.import_image(tar, name=name or "", message=message or "")
    session.print(image.id)
    return 0


COMMAND = Command(
    "import",
    "Make an image from a tarball of a root file system.",
    execute,
    options=(Option(("-m", "--message"), "A comment for the image's history.", "TEXT"),),
    arguments=(Argument("TAR", what="a path, or - for standard input"), Argument("NAME", optional=True)),
    not_yet="-c --change --platform",
)
