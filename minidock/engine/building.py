"""``build``: the builder with this engine's store, storage driver and runtime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from minidock.build.arguments import platform_name
from minidock.build.builder import build as build_image
from minidock.build.cache import BuildCache
from minidock.build.progress import PlainProgress, QuietProgress
from minidock.build.request import BuildRequest, RunSettings
from minidock.engine.build_steps import StepRunner
from minidock.engine.on_error import DISCARD, KEEP, SHELL, take_on_error
from minidock.engine.parts import open_rootfs
from minidock.engine.settings import check_texts, pairs
from minidock.errors import BuildError, UsageError
from minidock.model.dating import EPOCH_VARIABLE
from minidock.store.images import Images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from minidock.build.export import Finished
    from minidock.build.progress import Progress
    from minidock.engine.base import EngineBase
    from minidock.engine.outputs import Exporter, Wishes
    from minidock.engine.verifying import Verifier
    from minidock.rootfs import Rootfs
    from minidock.store.images import Image

# The names of options.OutputOptions, whose module most builds have no use for.
_OUTPUT_OPTIONS = ("outputs", "annotations", "stdout", "iidfile", "metadata_file", "squash", "attestations")
# Those of options.CacheOptions.
_CACHE_OPTIONS = ("cache_from", "cache_to", "no_cache_filter")


def make_request(
    context: str,
    *,
    text: str | None = None,
    dockerfile: str = "",
    tags: Sequence[str] = (),
    build_args: Mapping[str, str] | Sequence[str] = (),
    labels: Mapping[str, str] | Sequence[str] = (),
    target: str = "",
    no_cache: bool = False,
    network: str = "bridge",
    ulimits: Sequence[str] = (),
    contexts: Sequence[str] = (),
    ignorefile: str = "",
    platform: str = "",
    pull: bool = False,
    unsetenv: Sequence[str] = (),
    unsetlabel: Sequence[str] = (),
    jobs: int = 0,
    explain: bool = False,
    on_error: str = KEEP,
    **run_options: Any,
) -> BuildRequest:
    """The options of a build, but for those of its progress and of what it leaves behind. Raises UsageError."""
    exchange = _exchange(run_options)
    return BuildRequest(
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
        platform=wanted_platform(platform),
        pull=pull,
        unset_env=check_texts(*unsetenv),
        unset_labels=check_texts(*unsetlabel),
        # A shell is joined to the terminal, which only the builder itself has.
        jobs=1 if on_error == SHELL else _jobs(jobs),
        keep_failed=on_error != DISCARD,
        explain=explain,
        **exchange,
    )


def build(
    engine: EngineBase,
    context: str,
    *,
    progress: int | None,
    quiet: bool,
    progress_form: str,
    verify: bool = False,
    **options: Any,
) -> str:
    """Build an image; its ID. The caller is forked for RUN."""
    wishes = _wishes(options)
    on_error, before_shell = take_on_error(options)
    request = make_request(context, on_error=on_error, **options)
    root = engine.ready()
    images, rootfs = Images(root), open_rootfs(engine)
    export: Callable[[Finished], Image] | None = None if wishes is None else _exporter(wishes, images, rootfs, request)
    if verify:
        export = _verifier(engine, request, images, export)
    try:
        image = build_image(
            request,
            root=root,
            images=images,
            rootfs=rootfs,
            open_run=lambda: StepRunner(root, engine.log),
            pull=_puller(engine, request),
            progress=make_progress(progress, quiet=quiet, form=progress_form),
            export=export,
            before_shell=before_shell,
        )
    except BuildError as error:
        if error.kept:
            from minidock.engine import failed_steps

            failed_steps.trim(engine, error.kept)
        raise
    except (KeyboardInterrupt, SystemExit):
        # A signal comes at any instant: also when something has just been made, and nobody has noted yet to remove it.
        from minidock.runtime.step import remove_stale_cgroups

        engine.sweep()
        BuildCache(root).sweep_claims()
        remove_stale_cgroups(own=True)
        raise
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


def without_outputs(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a build but for those of what it leaves behind, which are checked. Raises UsageError."""
    rest = dict(options)
    _wishes(rest)
    return rest


def _exchange(options: dict[str, Any]) -> dict[str, Any]:
    """What of the cache comes from elsewhere or goes there, and the stages that have no part in it, taken out of the
    options: fields of the request. Raises UsageError."""
    given = {name: options.pop(name) for name in _CACHE_OPTIONS if name in options}
    if not any(given.values()):
        return {}
    from minidock.model.cache_places import parse_cache_from, parse_cache_to, parse_stage_names

    sources, places = given.get("cache_from", ()), given.get("cache_to", ())
    return {
        "cache_from": tuple(parse_cache_from(text) for text in check_texts(*sources)),
        "cache_to": tuple(parse_cache_to(text) for text in check_texts(*places)),
        "no_cache_filter": parse_stage_names(given.get("no_cache_filter", ())),
    }


def _exporter(wishes: Wishes, images: Images, rootfs: Rootfs, request: BuildRequest) -> Exporter:
    from minidock.engine.outputs import Exporter

    recorder = None
    if wishes.provenance is not None:
        from minidock.engine.provenance import Recorder

        recorder = Recorder(wishes.provenance, request)
    exporter = Exporter(wishes, images=images, rootfs=rootfs, recorder=recorder)
    exporter.check()
    return exporter


def _verifier(
    engine: EngineBase, request: BuildRequest, images: Images, export: Callable[[Finished], Image] | None
) -> Verifier:
    """What has the build done once more before it is exported, to the store where ``export`` is None."""
    from minidock.build.export import store_image
    from minidock.engine.verifying import Verifier

    return Verifier(
        engine,
        request,
        images=images,
        pull=_puller(engine, request),
        export=export or (lambda finished: store_image(finished, images)),
    )


def _puller(engine: EngineBase, request: BuildRequest) -> Callable[[str], Image]:
    """What fetches the images that are not here."""

    def pull(name: str) -> Image:
        from minidock.engine.fetching import puller

        return puller(engine, platform=request.platform)(name)

    return pull


def build_arguments(values: Mapping[str, str] | Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Build arguments as pairs; a name alone takes this process's value, and is left out where it has none.

    SOURCE_DATE_EPOCH of this process's environment is given, too, as with docker buildx.
    """
    if not hasattr(values, "items"):
        named = [text for text in values if "=" in text or text in os.environ]
        values = [text if "=" in text else f"{text}={os.environ[text]}" for text in named]
    found = pairs(values)
    for name, _ in found:
        if not name:
            raise UsageError("a build argument has no name", hint="the form is NAME=VALUE")
    epoch = os.environ.get(EPOCH_VARIABLE, "")
    if epoch and EPOCH_VARIABLE not in dict(found):
        found = (*found, (EPOCH_VARIABLE, epoch))
    return found


def wanted_platform(text: str) -> str:
    """What ``--platform`` asks for in its one spelling, empty for this machine. Raises UsageError."""
    if not text:
        return ""
    if "," in text:
        raise UsageError(
            f"cannot build for several platforms at once ({text}): here a name means one image",
            hint="build for each of them, under a name of its own",
        )
    return platform_name(text)


def _jobs(asked: int) -> int:
    """How many stages may run at once; 0 asks for as many as there are processors, and for two at least."""
    if asked < 0:
        raise UsageError(f"{asked} is no number of jobs", hint="--jobs takes 1 or more, 0 for the number of processors")
    return asked or max(2, len(os.sched_getaffinity(0)))


def make_progress(fd: int | None, *, quiet: bool, form: str = "plain") -> Progress:
    """What tells of a build on a descriptor, of nothing at all without one. Raises UsageError."""
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
