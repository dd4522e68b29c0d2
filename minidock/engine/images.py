"""The verbs of images: list, inspect, history, tag, remove, import."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from minidock.build.arguments import host_platform
from minidock.containers import status
from minidock.drivers.registry import NAMES
from minidock.engine.parts import make_driver, make_parts, open_rootfs
from minidock.engine.settings import check_texts
from minidock.errors import (
    ArchiveError,
    CorruptObjectError,
    DriverError,
    HostError,
    InvalidReferenceError,
    MinidockError,
    NoSuchImageError,
    StoreError,
)
from minidock.model.container import PAUSED, RUNNING
from minidock.model.digest import is_digest
from minidock.model.image_steps import MARK, steps_of
from minidock.model.oci import History, ImageConfig
from minidock.model.reference import FAILED, Reference, parse_reference
from minidock.store import files, locks, removal
from minidock.store.collector import forgiving
from minidock.store.failed_steps import FailedStep, FailedSteps
from minidock.store.images import Image, Images, tag_name
from minidock.store.removal import Removal, Use
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minidock.drivers.interface import Driver
    from minidock.engine.base import EngineBase
    from minidock.store.layout import DataRoot

# What docker's inspect shows of an image's configuration, with what stands for a field that is not there.
_CONFIG_DEFAULTS: dict[str, Any] = {
    "User": "",
    "ExposedPorts": None,
    "Env": None,
    "Cmd": None,
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


_TARBALLS = "give a tarball, plain or compressed with gzip, bzip2, xz or zstandard"


class HistoryLine(NamedTuple):
    """One line of ``history``, the latest first.

    ``id`` is the image's on the first line and empty on the others; ``created`` is RFC 3339 or empty; ``size`` is the
    bytes of the layer that the step made, 0 where it made none.
    """

    id: str
    created: str
    created_by: str
    size: int
    comment: str
    names: tuple[str, ...] = ()


def list_images(engine: EngineBase, *, all: bool = False) -> list[Image]:  # noqa: A002 - docker's word
    """Every image once, the latest stored first; a damaged one says so in ``error``. With ``all`` also what failed
    steps of builds have left, each with its own ``FAILED:ID`` as its name. Raises CorruptObjectError."""
    images = Images(engine.ready())
    found = images.list()
    if all:
        for step in FailedSteps(engine.root).list():
            with suppress(MinidockError):
                image = images.failed_step(step.id, step.layers, step.stored)
                found.append(image._replace(names=(step.name,)))
        found.sort(key=lambda image: (-image.created, image.id))
    return found


def inspect(engine: EngineBase, name: str) -> dict[str, Any]:
    """All that is known of an image, in the shape of docker's inspect. Raises NoSuchImageError, CorruptObjectError."""
    image = Images(engine.ready()).get(name)
    references = list(_references(image))
    raw = image.config.raw
    return {
        "Id": image.id,
        "RepoTags": [reference.familiar() for reference in references],
        "RepoDigests": _repo_digests(image, references),
        "Parent": "",
        "Comment": _comment(image.config),
        "Created": image.config.created,
        "DockerVersion": "",
        "Author": str(raw.get("author", "")),
        "Config": {**_CONFIG_DEFAULTS, **image.config.config},
        "Architecture": image.config.architecture,
        **({"Variant": raw["variant"]} if raw.get("variant") else {}),
        "Os": str(raw.get("os", "")),
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Data": None, "Name": engine.driver or "overlay2"},
        "RootFS": {"Type": "layers", "Layers": list(image.config.diff_ids)},
        "Metadata": {"LastTagTime": rfc3339(image.created)},
    }


def _repo_digests(image: Image, references: Sequence[Reference]) -> list[str]:
    """What registries call the image; while none does, what they would if they had it as it is here."""
    if image.repo_digests:
        return [parse_reference(text).familiar() for text in image.repo_digests]
    return sorted({f"{reference.familiar_repository}@{image.manifest_digest}" for reference in references})


def history(engine: EngineBase, name: str) -> list[HistoryLine]:
    """The steps that made an image, the latest first: the line at N is about ``NAME~N``. Raises NoSuchImageError,
    CorruptObjectError."""
    images = Images(engine.ready())
    image = images.get(name)
    sizes = [
        images.layer_size(diff_id, layer)
        for diff_id, layer in zip(image.config.diff_ids, image.manifest.layers, strict=True)
    ]
    steps = steps_of(image.config)
    left = iter(sizes)
    lines = [
        HistoryLine("", step.created, step.created_by, 0 if step.empty_layer else next(left, 0), step.comment)
        for step in steps
    ]
    if lines:
        names = tuple(reference.familiar() for reference in _references(image))
        lines[-1] = lines[-1]._replace(id=image.id, names=names)
    return lines[::-1]


def tag(engine: EngineBase, source: str, target: str) -> str:
    """Give an image a further name; returns the full reference.

    Raises NoSuchImageError, InvalidReferenceError for a target that is no name or has a digest.
    """
    images = Images(engine.ready())
    full = tag_name(target)
    image = images.get(source)
    if image.origin:
        images.commit(image.config, image.manifest.layers, names=[full])
        return full
    return images.tag(image, full)


def remove(engine: EngineBase, name: str, *, force: bool = False) -> Sequence[Removal]:
    """Remove a name of an image, and with the last one (or by ID) the image and what nothing else needs.

    Docker's rules, see ``store.removal``. What a failed step of a build has left is removed by its name. Raises
    NoSuchImageError, ConflictError when a container uses it.
    """
    if MARK in name:
        raise InvalidReferenceError(
            f"cannot remove {name}: a step of an image goes with the image", hint=f"remove {name.partition(MARK)[0]}"
        )
    if name.startswith(FAILED):
        return _remove_failed_step(engine, FailedSteps(engine.ready()).find(name))
    root = engine.ready()
    parts = make_parts(engine)

    # Whatever dead containers left is cleared up before any lock is held.
    status.list_all(parts)

    def in_use(image_id: str) -> Sequence[Use]:
        return tuple(
            Use(record.id, running=state.status in {RUNNING, PAUSED})
            for record, state in status.list_all(parts)
            if record.image_id == image_id
        )

    try:
        return removal.remove(
            Images(root), name, force=force, in_use=in_use, trees=drivers_in_use(engine), keep=cached_layers(root)
        )
    except NoSuchImageError as missing:
        # It may be an ID that `images -a` tells.
        try:
            step = FailedSteps(root).find(name)
        except NoSuchImageError:
            raise missing from None
        return _remove_failed_step(engine, step)


def _remove_failed_step(engine: EngineBase, step: FailedStep) -> Sequence[Removal]:
    """Forget what a failed step has left, and remove what nothing else needs. A container made of it keeps its files.
    Raises StoreError."""
    root = engine.ready()
    try:
        FailedSteps(root).remove(step.id)
    except OSError as error:
        raise StoreError(f"cannot remove {step.name}: {error.strerror}") from error
    with locks.exclusive(root.collection_lock):
        forgiving(root, trees=drivers_in_use(engine), keep=cached_layers(root))
    return [Removal("Deleted", step.id)]


def import_tar(
    engine: EngineBase, source: str | BinaryIO, *, name: str = "", message: str = "", from_text: str = ""
) -> Image:
    """Make an image of one layer from a tarball of a root file system: a path, ``-`` for standard input, or a file.

    The tarball may be compressed with gzip, bzip2, xz or zstandard. ``name`` is the image's name or empty; ``message``
    stands in its history, else where it came from (``from_text``, else the path). Raises ArchiveError,
    InvalidReferenceError, HostError when the tarball cannot be read.
    """
    check_texts(message, from_text)
    root = engine.ready()
    names = [tag_name(name)] if name else []
    if isinstance(source, str):
        from_text = from_text or source
        with _open_source(source) as file:
            try:
                return _import_file(engine, root, file, names, message or f"Imported from {from_text}")
            except ArchiveError as error:
                where = "standard input" if source == "-" else source
                raise type(error)(f"cannot import {where}: {error.message}", hint=error.hint or _TARBALLS) from error
    return _import_file(engine, root, source, names, message or f"Imported from {from_text or '-'}")


def _import_file(engine: EngineBase, root: DataRoot, file: BinaryIO, names: Sequence[str], comment: str) -> Image:
    rootfs = open_rootfs(engine)
    with Staging(root, "import") as staging:
        layer = rootfs.import_layer(file, staging)
        created = rfc3339(time.time_ns())
        config = base_config(created=created)
        config.raw["rootfs"]["diff_ids"].append(layer.digest)
        config.raw["history"].append(History(created=created, comment=comment).to_json())
        # What a tarball refers to and does not hold shows only when it is unpacked: before there is an image of it.
        rootfs.ensure(config.diff_ids)
        image = Images(root).commit(config, [layer], names=names)
    rootfs.settle()
    return image


def base_config(*, created: str) -> ImageConfig:
    """The configuration of an image that is made here from nothing, for this machine's architecture."""
    _, architecture, variant = [*host_platform().split("/"), ""][:3]
    config = ImageConfig.new(architecture=architecture)
    config.raw = {"created": created, **config.raw, **({"variant": variant} if variant else {})}
    return config


def rfc3339(nanoseconds: int) -> str:
    """A time since the epoch as RFC 3339 in UTC; the fraction is left out where it is zero."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    fraction = f".{rest:09d}" if rest else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def drivers_in_use(engine: EngineBase) -> list[Driver]:
    """The storage drivers that have layers in this data root, as far as this host can run them."""
    found = []
    for name in sorted({*NAMES}.intersection(os.listdir(engine.ready().layers))):
        try:
            found.append(make_driver(engine, name))
        except DriverError:
            continue
    return found


def cached_layers(root: DataRoot) -> Iterator[str]:
    """The layers that the build cache names. What of the cache cannot be read names none."""
    try:
        names = os.listdir(f"{root.cache}/build")
    except FileNotFoundError:
        return
    for name in names:
        try:
            diff_id = files.read_json(f"{root.cache}/build/{name}").get("diff_id")
        except (OSError, CorruptObjectError):
            continue
        if isinstance(diff_id, str) and is_digest(diff_id):
            yield diff_id


def _open_source(path: str) -> BinaryIO:
    try:
        return open(0, "rb", closefd=False) if path == "-" else open(path, "rb")
    except OSError as error:
        raise HostError(f"cannot read the tarball {path}: {error.strerror}") from error


def _comment(config: ImageConfig) -> str:
    steps = config.history
    return steps[-1].comment if steps else ""


def _references(image: Image) -> Iterator[Reference]:
    """The image's names, but for those of other programs that are no references."""
    for full in image.names:
        try:
            yield parse_reference(full)
        except InvalidReferenceError:
            continue
