"""``build``: the builder with this engine's store, storage driver and runtime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from minidock.build.builder import build as build_image
from minidock.build.progress import PlainProgress, QuietProgress
from minidock.build.request import BuildRequest
from minidock.engine.build_steps import StepRunner
from minidock.engine.parts import open_rootfs
from minidock.engine.settings import check_texts, pairs
from minidock.errors import NoSuchImageError, UsageError
from minidock.store.images import Images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.build.progress import Progress
    from minidock.engine.base import EngineBase


def build(
    engine: EngineBase,
    context: str,
    *,
    text: str | None,
    dockerfile: str,
    tags: Sequence[str],
    build_args: Mapping[str, str] | Sequence[str],
    labels: Mapping[str, str] | Sequence[str],
    target: str,
    no_cache: bool,
    network: str,
    ulimits: Sequence[str],
    progress: int | None,
    quiet: bool,
) -> str:
    """Build an image; its ID. The caller is forked for RUN."""
    if ulimits:
        from minidock.model.ulimits import parse_ulimits

        parse_ulimits(ulimits)
    request = BuildRequest(
        context=context,
        dockerfile=dockerfile,
        text=text,
        tags=tuple(tags),
        build_args=_arguments(build_args),
        target=target,
        no_cache=no_cache,
        network=network,
        labels=pairs(labels),
        ulimits=check_texts(*ulimits),
    )
    root = engine.ready()
    with StepRunner(root, engine.log) as run:
        image = build_image(
            request,
            root=root,
            images=Images(root),
            rootfs=open_rootfs(engine),
            run=run,
            pull=_pull,
            progress=_progress(progress, quiet=quiet),
        )
    return image.id


def _arguments(values: Mapping[str, str] | Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Build arguments as pairs; a name alone takes this process's value, and is left out where it has none."""
    if not hasattr(values, "items"):
        named = [text for text in values if "=" in text or text in os.environ]
        values = [text if "=" in text else f"{text}={os.environ[text]}" for text in named]
    found = pairs(values)
    for name, _ in found:
        if not name:
            raise UsageError("a build argument has no name", hint="the form is NAME=VALUE")
    return found


def _progress(fd: int | None, *, quiet: bool) -> Progress:
    if fd is None:
        return QuietProgress(lambda _: None)

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(fd, data) :]

    return QuietProgress(write) if quiet else PlainProgress(write)


def _pull(name: str) -> NoReturn:
    raise NoSuchImageError(
        f"there is no image {name!r} on this host, and there is no registry to pull it from yet",
        hint="see `minidock images`; make a base image with `minidock image bootstrap busybox` or `debian`",
    )
