"""``minidock push``: an image to a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session
    from minidock.engine.transfers import Event


def execute(session: Session, *, image: str, all_tags: bool, quiet: bool) -> int:
    """Push, telling docker's lines on the way."""
    from minidock.engine.transfers import PROGRESS
    from minidock.model.reference import parse_reference

    reference = parse_reference(image)

    def tell(event: Event) -> None:
        if not quiet and event.state not in PROGRESS:
            session.print(f"{event.layer}: {event.state}")

    if not quiet:
        if not reference.tag and not reference.digest and not all_tags:
            session.print("Using default tag: latest")
        session.print(f"The push refers to repository [{reference.repository}]")
    for pushed in session.engine.push(image, all_tags=all_tags, tell=tell):
        tag = parse_reference(pushed.name).tag
        session.print(pushed.name if quiet else f"{tag}: digest: {pushed.digest} size: {pushed.size}")
    return 0


COMMAND = Command(
    "push",
    "Push an image to a registry.",
    execute,
    options=(
        Option(("-a", "--all-tags"), "Push every image here that has a name of this repository."),
        Option(("-q", "--quiet"), "Print the image's name only."),
    ),
    arguments=(Argument("IMAGE", what="NAME[:TAG]"),),
    not_yet="--disable-content-trust --platform",
)
