"""``build``: the builder with this engine's store, storage driver and runtime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

from minidock.build.builder import build as build_image
from minidock.build.progress import PlainProgress, QuietProgress
from minidock.build.request import BuildRequest, RunSettings
from minidock.engine.build_steps import StepRunner
from minidock.engine.parts import open_rootfs
from minidock.engine.settings import check_texts, pairs
from minidock.errors import NoSuchImageError, UsageError
from minidock.store.images import Images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.build.progress import Progress
    from minidock.engine.base import EngineBase
    from minidock.engine.outputs import Exporter, Wishes
    from minidock.rootfs import Rootfs

# The names of options.OutputOptions, whose module most builds have no use for.
_OUTPUT_OPTIONS = ("outputs", "annotations", "stdout", "iidfile", "metadata_file", "squash")


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
    progress_form: str,
    contexts: Sequence[str] = (),
    ignorefile: str = "",
    jobs: int = 0,
    **run_options: Any,
) -> str:
    """Build an image; its ID. The caller is forked for RUN."""
    wishes = _wishes(run_options)
    request = BuildRequest(
        context=context,
        dockerfile=dockerfile,
        text=text,
        tags=tuple(tags),
        build_args=build_arguments(build_args),
        target=target,
        no_cache=no_cache,
        network=network,
        labels=pairs(labels),
        ulimits=check_texts(*ulimits),
        run=_run_settings(run_options, network=network, ulimits=ulimits),
        contexts=check_texts(*contexts),
        ignorefile=ignorefile,
        jobs=_jobs(jobs),
    )
    root = engine.ready()
    images, rootfs = Images(root), open_rootfs(engine)
    image = build_image(
        request,
        root=root,
        images=images,
        rootfs=rootfs,
        open_run=lambda: StepRunner(root, engine.log),
        pull=_pull,
        progress=_progress(progress, quiet=quiet, form=progress_form),
        export=None if wishes is None else _exporter(wishes, images, rootfs),
    )
    return image.id


def _run_settings(options: Mapping[str, Any], *, network: str, ulimits: Sequence[str]) -> RunSettings:
    if ulimits:
        from minidock.model.ulimits import parse_ulimits

        parse_ulimits(ulimits)
    if not options and network == "bridge":
        return RunSettings()
    from minidock.engine.run_settings import run_settings

    return run_settings(options, network=network)


def _wishes(options: dict[str, Any]) -> Wishes | None:
    """What the build is to leave behind, taken out of the options; None for an image in the store and no more."""
    given = {name: options.pop(name) for name in _OUTPUT_OPTIONS if name in options}
    stdout = given.pop("stdout", None)
    if not any(given.values()):
        return None
    from minidock.engine.outputs import make_wishes

    return make_wishes(**given, stdout=stdout)


def _exporter(wishes: Wishes, images: Images, rootfs: Rootfs) -> Exporter:
    from minidock.engine.outputs import Exporter

    exporter = Exporter(wishes, images=images, rootfs=rootfs)
    exporter.check()
    return exporter


def build_arguments(values: Mapping[str, str] | Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Build arguments as pairs; a name alone takes this process's value, and is left out where it has none."""
    if not hasattr(values, "items"):
        named = [text for text in values if "=" in text or text in os.environ]
        values = [text if "=" in text else f"{text}={os.environ[text]}" for text in named]
    found = pairs(values)
    for name, _ in found:
        if not name:
            raise UsageError("a build argument has no name", hint="the form is NAME=VALUE")
    return found


def _jobs(asked: int) -> int:
    """How many stages may run at once; 0 asks for as many as there are processors, and for two at least."""
    if asked < 0:
        raise UsageError(f"{asked} is no number of jobs", hint="--jobs takes 1 or more, 0 for the number of processors")
    return asked or max(2, len(os.sched_getaffinity(0)))


def _progress(fd: int | None, *, quiet: bool, form: str = "plain") -> Progress:
    if fd is None:
        return QuietProgress(lambda _: None)

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(fd, data) :]

    if quiet:
        return QuietProgress(write)
    if form == "plain":
        return PlainProgress(write)
    if form == "events":
        from minidock.build.events import EventProgress

        return EventProgress(write)
    if form == "rawjson":
        from minidock.build.rawjson import RawJsonProgress

        return RawJsonProgress(write)
    raise UsageError(f"there is no progress form {form!r}", hint="it is plain, rawjson or events")


def _pull(name: str) -> NoReturn:
    raise NoSuchImageError(
        f"there is no image {name!r} on this host, and there is no registry to pull it from yet",
        hint="see `minidock images`; make a base image with `minidock image bootstrap busybox` or `debian`",
    )
