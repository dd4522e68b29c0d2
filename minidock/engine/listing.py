"""The verbs that look at containers: ``ps`` and ``logs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.containers import status
from minidock.engine.listings import ContainerSummary, LogPiece
from minidock.engine.parts import make_parts
from minidock.errors import CorruptObjectError, MinidockError
from minidock.model.container import PAUSED, RUNNING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from minidock.containers.parts import Parts
    from minidock.engine.base import EngineBase


def logs(
    engine: EngineBase, container: str, *, follow: bool, tail: int, since: int, until: int, timestamps: bool
) -> Iterator[LogPiece]:
    """The container is looked for at once, its log is read as the caller asks for pieces."""
    from minidock.containers import logs as container_logs

    parts = make_parts(engine)
    record, _ = status.find(parts, container)
    pieces = container_logs.read(
        parts.root.container_dir(record.id),
        tail=tail,
        since=since,
        until=until,
        follow=follow,
        timestamps=timestamps,
        running=lambda: status.is_live(parts, record.id),
    )
    return (LogPiece(*piece) for piece in pieces)


def summaries(engine: EngineBase, *, all: bool) -> list[ContainerSummary]:  # noqa: A002 - the command's word
    """The containers, the latest created first. Those whose files are damaged are warned of."""
    parts = make_parts(engine)
    there = parts.containers.ids()
    listed = status.list_all(parts)
    _warn_of_damaged(parts, set(there).difference(record.id for record, _ in listed))
    return [
        ContainerSummary(
            id=record.id,
            name=record.name,
            image=record.image,
            image_id=record.image_id,
            command=record.args,
            created=record.created,
            status=state.status,
            exit_code=state.exit_code,
            started=state.started,
            finished=state.finished,
            labels=dict(record.labels),
            volumes=tuple(mount.source for mount in record.mounts if mount.type == "volume"),
            network=record.settings.network,
            ports=record.exposed_ports if state.status in (RUNNING, PAUSED) else (),
        )
        for record, state in listed
        if all or state.status in (RUNNING, PAUSED)
    ]


def _warn_of_damaged(parts: Parts, ids: Iterable[str]) -> None:
    """Say which of these containers are damaged; those that have gone meanwhile are not."""
    for container_id in ids:
        try:
            status.check(parts, container_id)
        except CorruptObjectError as error:
            name = container_id[:12]
            parts.log.warning(f"container {name} is damaged: {error.message}; remove it: minidock rm -f {name}")
        except MinidockError:
            continue
