"""Removal of images by docker's rules (moby, daemon/images/image_delete.go)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import ConflictError, InvalidReferenceError, MinidockError
from minidock.model.oci import ImageConfig
from minidock.model.reference import parse_reference
from minidock.store import locks
from minidock.store.collector import Trees, forgiving
from minidock.store.index import changing

if TYPE_CHECKING:
    from minidock.store.images import Found, Images


class Use(NamedTuple):
    """A container that uses an image; ``running`` is true for a paused one, too."""

    container: str
    running: bool


class Removal(NamedTuple):
    """One line of ``rmi``: ``kind`` is "Untagged" (``name`` is a familiar one) or "Deleted" (a digest)."""

    kind: str
    name: str


def remove(
    images: Images,
    name_or_id: str,
    *,
    force: bool,
    in_use: Callable[[str], Sequence[Use]],
    trees: Sequence[Trees] = (),
    keep: Iterable[str] = (),
) -> list[Removal]:
    """Remove a name of an image; with its last name, or by ID, the image and what nothing else needs.

    ``in_use`` tells the containers of an image ID; ``trees`` are the drivers whose layers are collected; ``keep`` are
    digests that stay unless they are this image's layers (those of the build cache). By name, a container refuses the
    removal of the last name unless ``force``; forced, a running one lets the name go and keeps the image. By ID, a
    running container always refuses; a stopped one, or several names, unless ``force``. Raises NoSuchImageError,
    ConflictError.
    """
    with locks.exclusive(images.root.collection_lock):
        with changing(images.root) as index:
            found = images.find(index, name_or_id)
            uses = in_use(found.id)
            if found.named:
                deleted = _refuse_by_name(found, uses, force=force)
            else:
                deleted = _refuse_by_id(found, uses, force=force)
            gone = found.named or tuple(found.entries)
            layers = _layers(images, found.id) if deleted else ()
            for entry in gone:
                index.drop(entry, keep_image=not deleted)
        events = [Removal("Untagged", _familiar(entry.name)) for entry in gone if entry.name]
        if deleted:
            events.append(Removal("Deleted", found.id))
        collected = forgiving(images.root, trees=trees, keep=set(keep).difference(layers))
    removed = {*collected.blobs, *collected.trees}
    events += [Removal("Deleted", layer) for layer in reversed(layers) if layer in removed]
    return events


def _refuse_by_id(found: Found, uses: Sequence[Use], *, force: bool) -> bool:
    """Whether the image goes, which it does unless it is refused."""
    for use in uses:
        if use.running:
            reason = f"image is being used by running container {use.container[:12]}"
            raise _conflict(found.id, "cannot be forced", reason)
    if not force and len({entry.name for entry in found.entries if entry.name}) > 1:
        raise _conflict(found.id, "must be forced", "image is referenced in multiple repositories")
    if not force and uses:
        reason = f"image is being used by stopped container {uses[0].container[:12]}"
        raise _conflict(found.id, "must be forced", reason)
    return True


def _refuse_by_name(found: Found, uses: Sequence[Use], *, force: bool) -> bool:
    """Whether the image goes with the name."""
    if len(found.named) < len(found.entries):
        return False
    if uses and not force:
        name = _familiar(found.named[0].name)
        raise ConflictError(
            f'conflict: unable to remove repository reference "{name}" (must force) - container '
            f"{uses[0].container[:12]} is using its referenced image {found.id[7:19]}",
            hint="remove the container first, or use -f",
        )
    return not any(use.running for use in uses)


def _conflict(image_id: str, degree: str, reason: str) -> ConflictError:
    hint = "use -f" if degree == "must be forced" else "stop the container first"
    return ConflictError(f"conflict: unable to delete {image_id[7:19]} ({degree}) - {reason}", hint=hint)


def _layers(images: Images, image_id: str) -> tuple[str, ...]:
    try:
        return ImageConfig.decode(images.blobs.read(image_id)).diff_ids
    except MinidockError:
        return ()


def _familiar(name: str) -> str:
    try:
        return parse_reference(name).familiar()
    except InvalidReferenceError:
        return name
