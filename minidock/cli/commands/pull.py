"""``minidock pull``: an image from a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minidock.cli.session import Session
    from minidock.engine.pulling import Pulled
    from minidock.engine.transfers import Event


def execute(session: Session, *, image: str, all_tags: bool, platform: str | None, quiet: bool) -> int:
    """Pull, telling docker's lines on the way, and print the full reference."""
    from minidock.model.reference import parse_reference

    reference = parse_reference(image)
    if not quiet and not all_tags:
        if not reference.tag and not reference.digest:
            session.print("Using default tag: latest")
        named = reference.tagged()
        session.print(f"{named.tag or named.digest}: Pulling from {reference.path}")
    pulled = session.engine.pull(
        image, platform=platform or "", all_tags=all_tags, tell=_silent if quiet else _teller(session)
    )
    if not quiet:
        _conclude(session, pulled)
    for one in pulled if not all_tags else pulled[:1]:
        session.print(one.name)
    return 0


def _conclude(session: Session, pulled: Sequence[Pulled]) -> None:
    from minidock.model.reference import parse_reference

    for one in pulled:
        session.print(f"Digest: {one.digest}")
        what = "Downloaded newer image for" if one.fresh else "Image is up to date for"
        session.print(f"Status: {what} {parse_reference(one.name).familiar()}")


def _silent(event: Event) -> None:
    del event


def _teller(session: Session) -> Callable[[Event], None]:
    """Lines for what happens to layers; how far a download has come is for a live view only."""
    from minidock.engine.transfers import PROGRESS

    def tell(event: Event) -> None:
        if event.state not in PROGRESS:
            session.print(f"{event.layer}: {event.state}")

    return tell


COMMAND = Command(
    "pull",
    "Pull an image from a registry.",
    execute,
    options=(
        Option(("-a", "--all-tags"), "Pull every tag of the repository."),
        Option(("--platform",), "Pull the image for this platform.", "OS/ARCH[/VARIANT]"),
        Option(("-q", "--quiet"), "Print the image's name only."),
    ),
    arguments=(Argument("IMAGE", what="NAME[:TAG|@DIGEST]"),),
    not_yet="--disable-content-trust",
)
