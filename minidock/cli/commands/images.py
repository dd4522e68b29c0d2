"""``minidock images``."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from minidock.cli import text, when
from minidock.cli.declare import Argument, Command, Option
from minidock.model.reference import FAILED, parse_reference

if TYPE_CHECKING:
    from minidock.cli.filters import Filters
    from minidock.cli.session import Session

COLUMNS = {"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE"}
FILTERS = ("dangling", "label", "before", "since", "until", "reference")
NONE = "<none>"


def execute(
    session: Session,
    *,
    repository: str | None,
    all: bool,  # noqa: A002 - the flags' names
    quiet: bool,
    no_trunc: bool,
    digests: bool,
    filter: tuple[str, ...],  # noqa: A002
    format: str | None,  # noqa: A002
) -> int:
    """Print the images as a table, one line for each name, as IDs, or in a format."""
    from minidock.cli.filters import Filters
    from minidock.cli.table import print_ids, print_list

    filters = Filters(filter, known=FILTERS)
    images = _filtered(session, filters, failed=all)
    rows = list(_rows(images, filters, repository, no_trunc=no_trunc))
    columns = COLUMNS
    if digests:
        columns = {"Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", **COLUMNS}
    if quiet and not format:
        print_ids(session, dict.fromkeys(row["ID"] for row in rows))
    else:
        print_list(session, rows, columns=columns, template=format)
    _warn_of_damaged(session, images)
    return 0


def _warn_of_damaged(session: Session, images: list[Any]) -> None:
    for image in images:
        if image.error:
            name = ":".join(_familiar(image.names[0])) if image.names else text.short_id(image.id)
            warning = f"image {name} is damaged: {image.error}; remove it: minidock rmi -f {name}"
            session.print_error(text.printable(f"minidock: warning: {warning}"))


def _filtered(session: Session, filters: Filters, *, failed: bool) -> list[Any]:
    engine = session.engine
    images = list(engine.images(all=True) if failed else engine.images())
    created = {image.id: image.created for image in images}
    latest = [created[engine.image_inspect(name)["Id"]] for name in filters.values("before")]
    earliest = [created[engine.image_inspect(name)["Id"]] for name in filters.values("since")]
    until = filters.times("until")
    dangling = filters.boolean("dangling")
    return [
        image
        for image in images
        if (dangling is None or dangling == (not image.names))
        and filters.labels(image.config.config.get("Labels") or {})
        and all(image.created < bound for bound in (*latest, *until))
        and all(image.created > bound for bound in earliest)
    ]


def _rows(images: list[Any], filters: Filters, wanted: str | None, *, no_trunc: bool) -> Iterator[dict[str, Any]]:
    patterns = filters.values("reference")
    for image in images:
        for name in image.names or ("",):
            repository, tag = _familiar(name)
            full = f"{repository}:{tag}"
            if wanted and not _matches(wanted, repository, full):
                continue
            if patterns and not any(_matches(pattern, repository, full) for pattern in patterns):
                continue
            yield {
                "Repository": repository,
                "Tag": tag,
                "Digest": _digest(image, name),
                "ID": image.id if no_trunc else text.short_id(image.id),
                "CreatedSince": when.ago(image.created),
                "CreatedAt": when.local_time(image.created),
                "Size": text.size(image.size),
            }


def _digest(image: Any, name: str) -> str:
    """What a name's registry calls the image, or what the manifest is here."""
    repository = name.rpartition(":")[0]
    known = [text.rpartition("@")[2] for text in image.repo_digests if text.rpartition("@")[0] == repository]
    return str(known[-1] if known else image.manifest_digest)


def _familiar(name: str) -> tuple[str, str]:
    if not name:
        return NONE, NONE
    repository, _, digits = name.partition(":")
    if repository == FAILED:
        return repository, digits
    reference = parse_reference(name)
    return reference.familiar_repository, reference.tag or NONE


def _matches(pattern: str, repository: str, full: str) -> bool:
    return fnmatch.fnmatchcase(repository, pattern) or fnmatch.fnmatchcase(full, pattern)


COMMAND = Command(
    "images",
    "List images.",
    execute,
    options=(
        Option(("-a", "--all"), "List what failed steps of builds have left, too."),
        Option(("-q", "--quiet"), "Print IDs only."),
        Option(("--no-trunc",), "Print IDs whole."),
        Option(("--digests",), "Print manifest digests too."),
        Option(("-f", "--filter"), f"Only those for which it holds: {', '.join(FILTERS)}.", "KEY=VALUE", many=True),
        Option(("--format",), "json, table TEMPLATE, or a template.", "TEMPLATE"),
    ),
    arguments=(Argument("REPOSITORY", optional=True),),
    not_yet="--tree",
)
