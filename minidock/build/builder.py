"""The build: from a request to an image."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from minidock.build.arguments import asks_for_inline_cache
from minidock.build.cache import BuildCache
from minidock.build.checks import named_contexts
from minidock.build.contexts import open_contexts
from minidock.build.export import Finished, inherited_layers, store_image
from minidock.build.pending import Pending
from minidock.build.reading import project_of, read_stages, uncached_stages
from minidock.build.result import image_config
from minidock.build.schedule import Schedule
from minidock.build.tools import Tools
from minidock.store.blobs import Blobs
from minidock.store.images import tag_name
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from minidock.build.cache_exchange import Exchange
    from minidock.build.dispatch import Dispatcher
    from minidock.build.explaining import Explainer
    from minidock.build.progress import Progress
    from minidock.build.request import BuildRequest
    from minidock.build.tools import StageResult
    from minidock.build.work import RunStep
    from minidock.errors import BuildError
    from minidock.rootfs import Rootfs
    from minidock.store.images import Image, Images
    from minidock.store.layout import DataRoot


def build(
    request: BuildRequest,
    *,
    root: DataRoot,
    images: Images,
    rootfs: Rootfs,
    open_run: Callable[[], AbstractContextManager[RunStep]],
    pull: Callable[[str], Image],
    progress: Progress,
    export: Callable[[Finished], Image] | None = None,
    before_shell: Callable[[BuildError], None] | None = None,
) -> Image:
    """Build the image that ``request`` asks for and give it its tags.

    ``open_run`` gives what runs the commands of RUN, anew in each process that does; ``pull`` fetches an image that the
    store has not; ``export`` does something else with the finished image than to put it into the store. With
    ``before_shell`` a shell is opened on the terminal where a command has failed, once that was called with the error;
    it is for a single job. Stages that do not need each other run in processes of their own, if several jobs may run.
    Nothing is stored under a name unless every step succeeded; the layers of those that did serve the next build.

    Raises BuildError for a step that fails and for what is not executed, both with their place, DockerfileError for
    what cannot be parsed, UsageError for a context, Dockerfile or tag that makes no sense.
    """
    tags = [tag_name(tag) for tag in request.tags]
    blobs, cache = Blobs(root), BuildCache(root)
    cache.sweep_claims()
    named = named_contexts(request)
    with (
        Staging(root, "build") as staging,
        _exchange(request, cache, images=images, staging=staging, progress=progress) as exchange,
        open_contexts(request, named, rootfs=rootfs, staging=staging, progress=progress) as contexts,
        open_run() as run,
        Pending(blobs, cache) as pending,
    ):
        dockerfile, target, dispatcher, labels = read_stages(
            request, contexts, images=images, pull=pull, staging=staging, progress=progress
        )
        tools = Tools(
            rootfs=rootfs,
            blobs=blobs,
            cache=cache,
            pending=pending,
            staging=staging,
            contexts=contexts,
            run=run,
            progress=progress,
            text=dockerfile.source,
            no_cache=request.no_cache,
            keep_failed=request.keep_failed,
            before_shell=before_shell,
            uncached=uncached_stages(request, dockerfile, progress),
            project=project_of(request),
            explainer=_explainer(root) if request.explain else None,
            imports=exchange.imports if exchange is not None else None,
        )
        results = _run(tools, dispatcher, labels, root=root, open_run=open_run, jobs=request.jobs)
        config = image_config(dispatcher.states, results, target, request, epoch=dispatcher.epoch)
        inherited, inputs = inherited_layers(dispatcher.states, target), dispatcher.inputs
        finished = Finished(config, results[target].layers, tuple(tags), staging, progress, inherited, inputs)
        return _leave(finished, exchange, blobs, export or partial(store_image, images=images))


@contextmanager
def _exchange(
    request: BuildRequest, cache: BuildCache, *, images: Images, staging: Staging, progress: Progress
) -> Iterator[Exchange | None]:
    """What the cache takes from elsewhere and gives away, None where nobody asked for that."""
    inline = bool(request.build_args) and asks_for_inline_cache(request.build_args)
    if not (request.cache_from or request.cache_to or inline):
        yield None
        return
    from minidock.build.cache_exchange import open_exchange

    with open_exchange(request, cache, images=images, staging=staging, progress=progress, inline=inline) as exchange:
        yield exchange


def _leave(finished: Finished, exchange: Exchange | None, blobs: Blobs, export: Callable[[Finished], Image]) -> Image:
    """Export the image, then what the cache gives away."""
    if exchange is None:
        return export(finished)
    finished = exchange.inlined(finished)
    image = export(finished)
    exchange.export(finished, blobs)
    return image


def _explainer(root: DataRoot) -> Explainer:
    from minidock.build.explaining import Explainer

    return Explainer(root)


def _run(
    tools: Tools,
    dispatcher: Dispatcher,
    labels: Mapping[int, str],
    *,
    root: DataRoot,
    open_run: Callable[[], AbstractContextManager[RunStep]],
    jobs: int,
) -> Mapping[int, StageResult]:
    """Run the steps of the stages, given with what the progress calls them; their results by number."""
    schedule = Schedule(
        tools,
        states=dispatcher.states,
        labels=labels,
        needs=dispatcher.needs,
        open_tools=lambda progress: _tools_apart(tools, progress, root, open_run),
        jobs=jobs,
    )
    return schedule.run(list(labels))


@contextmanager
def _tools_apart(
    tools: Tools, progress: Progress, root: DataRoot, open_run: Callable[[], AbstractContextManager[RunStep]]
) -> Iterator[Tools]:
    """The tools of a process that builds one stage: what makes and keeps things there is its own."""
    with (
        Staging(root, "stage") as staging,
        open_run() as run,
        Pending(tools.blobs, tools.cache) as pending,
    ):
        yield tools._replace(staging=staging, run=run, pending=pending, progress=progress)
