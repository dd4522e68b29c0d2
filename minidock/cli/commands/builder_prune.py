"""``minidock builder prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli import text
from minidock.cli.commands.build import read_size
from minidock.cli.declare import Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session


def execute(
    session: Session,
    *,
    all: bool,  # noqa: A002 - the flags' names
    filter: tuple[str, ...],  # noqa: A002
    force: bool,
    keep_storage: int | None,
    reserved_space: int | None,
    max_used_space: int | None,
    min_free_space: int | None,
) -> int:
    """Ask, unless told not to, then remove and say what that freed."""
    from minidock.cli.commands.builder_du import FILTERS, chosen
    from minidock.cli.filters import Filters

    filters = Filters(filter, known=FILTERS)
    which = "the whole build cache" if all else "the build cache, but for layers that images share"
    if not force and not session.confirm(f"WARNING! This removes {which}."):
        return 0
    ids = [entry.id for entry in chosen(session.engine.builder_usage(), filters)] if filter else None
    bounds = {"max_used": max_used_space, "min_free": min_free_space}
    removed = session.engine.builder_prune(
        all=all,
        ids=ids,
        keep_bytes=reserved_space or keep_storage or 0,
        **{name: size for name, size in bounds.items() if size},
    )
    for name in removed.names:
        session.print(name)
    session.print(f"Total reclaimed space: {text.size(removed.bytes)}")
    return 0


COMMAND = Command(
    "prune",
    "Remove what builds leave behind: records of steps with their layers, and cache mounts.",
    execute,
    options=(
        Option(("-a", "--all"), "Remove records whose layers images share, too."),
        Option(
            ("--filter",),
            "Only those for which it holds, such as until=24h or type=cachemount.",
            "KEY=VALUE",
            many=True,
        ),
        Option(("-f", "--force"), "Do not ask."),
        Option(("--reserved-space",), "Keep the latest used up to this size in any case.", "BYTES", read=read_size),
        Option(("--keep-storage",), "The former name of --reserved-space.", "BYTES", read=read_size),
        Option(("--max-used-space",), "Keep the latest used up to this size.", "BYTES", read=read_size),
        Option(("--min-free-space",), "Remove until this much of the disk is free.", "BYTES", read=read_size),
    ),
)
