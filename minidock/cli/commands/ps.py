"""``minidock ps``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli import text, when
from minidock.cli.declare import Command, Option, read_whole
from minidock.errors import NoSuchContainerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.cli.filters import Filters
    from minidock.cli.session import Session
    from minidock.engine.listings import ContainerSummary

COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
}
FILTERS = ("id", "name", "label", "status", "exited", "ancestor", "volume", "network", "before", "since")


STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_SHORTEST_ID = 4


def execute(
    session: Session,
    *,
    all: bool,  # noqa: A002 - the flags' names
    latest: bool,
    last: int | None,
    quiet: bool,
    no_trunc: bool,
    filter: tuple[str, ...],  # noqa: A002
    format: str | None,  # noqa: A002
) -> int:
    """Print the containers as a table, as IDs, or in a format."""
    from minidock.cli.filters import Filters
    from minidock.cli.table import print_ids, print_list

    filters = Filters(filter, known=FILTERS)
    count = 1 if latest else last
    everything = all or count is not None or any(key in filters for key in ("status", "exited", "before", "since"))
    found = _filtered(session.engine.ps(all=everything), filters)
    if count is not None and count >= 0:
        found = found[:count]
    if quiet and not format:
        print_ids(session, (container.id if no_trunc else text.short_id(container.id) for container in found))
    else:
        print_list(
            session, (_row(container, no_trunc=no_trunc) for container in found), columns=COLUMNS, template=format
        )
    return 0


def _filtered(containers: Sequence[ContainerSummary], filters: Filters) -> list[ContainerSummary]:
    after = [_position(containers, name) for name in filters.values("before")]
    ahead = [_position(containers, name) for name in filters.values("since")]
    filters.require("status", STATUSES)
    exit_codes = filters.numbers("exited")
    return [
        c
        for index, c in enumerate(containers)
        if filters.found_in("name", c.name)
        and (not filters.values("id") or any(c.id.startswith(value) for value in filters.values("id")))
        and filters.labels(c.labels)
        and filters.matches("status", c.status)
        and (not exit_codes or (c.status == "exited" and c.exit_code in exit_codes))
        and (not filters.values("ancestor") or any(_comes_from(c, value) for value in filters.values("ancestor")))
        and filters.matches("volume", *c.volumes)
        and filters.matches("network", c.network)
        and all(index > place for place in after)
        and all(index < place for place in ahead)
    ]


def _position(containers: Sequence[ContainerSummary], name: str) -> int:
    """Where the container of that name, ID or beginning of an ID is in the list. Raises NoSuchContainerError."""
    found = [index for index, c in enumerate(containers) if name in (c.id, c.name)]
    found = found or [index for index, c in enumerate(containers) if name and c.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    raise NoSuchContainerError(f"no such container: {name!r}", hint="see `minidock ps -a`")


def _comes_from(container: ContainerSummary, image: str) -> bool:
    """True if the container was made from that image: its name with or without tag, or the beginning of its ID."""
    name = container.image.removesuffix(":latest")
    repository = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    if image in (name, repository, repository.rpartition(":")[0]):
        return True
    digits = image.removeprefix("sha256:")
    return len(digits) >= _SHORTEST_ID and container.image_id.removeprefix("sha256:").startswith(digits)


def _row(container: ContainerSummary, *, no_trunc: bool) -> dict[str, Any]:
    command = " ".join(container.command)
    return {
        "ID": container.id if no_trunc else text.short_id(container.id),
        "Image": container.image,
        "Command": '"' + (command if no_trunc else text.cut(command, 20)) + '"',
        "CreatedAt": when.local_time(container.created),
        "RunningFor": when.ago(container.created),
        "Ports": ", ".join(container.ports),
        "State": container.status,
        "Status": status_text(container),
        "Names": container.name,
        "Labels": ",".join(f"{key}={value}" for key, value in container.labels.items()),
        "LocalVolumes": str(len(container.volumes)),
        "Mounts": ",".join(container.volumes),
        "Networks": container.network,
    }


def status_text(container: ContainerSummary) -> str:
    """``Up 3 minutes``, ``Exited (0) 2 hours ago``, ``Created``."""
    if container.status in ("running", "paused"):
        return f"Up {when.since(container.started)}" + (" (Paused)" if container.status == "paused" else "")
    if container.status == "exited":
        return f"Exited ({container.exit_code}) {when.ago(container.finished)}"
    return container.status.capitalize()


COMMAND = Command(
    "ps",
    "List containers.",
    execute,
    options=(
        Option(("-a", "--all"), "List those too that do not run."),
        Option(("-l", "--latest"), "List the one created last, running or not."),
        Option(("-n", "--last"), "List this many of those created last, running or not.", "COUNT", read=read_whole),
        Option(("-q", "--quiet"), "Print IDs only."),
        Option(("--no-trunc",), "Print IDs and commands whole."),
        Option(("-f", "--filter"), f"Only those for which it holds: {', '.join(FILTERS)}.", "KEY=VALUE", many=True),
        Option(("--format",), "json, table TEMPLATE, or a template.", "TEMPLATE"),
    ),
    not_yet="-s --size",
)
