"""The build: from a request to an image."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from minidock.build.arguments import global_arguments
from minidock.build.bases import Bases
from minidock.build.cache import BuildCache
from minidock.build.checks import Checks, named_contexts
from minidock.build.context import read_dockerfile, read_rules
from minidock.build.contexts import open_contexts, without_replaced
from minidock.build.dispatch import Dispatcher
from minidock.build.export import Finished, inherited_layers, store_image
from minidock.build.graph import build_graph, find_target, reachable
from minidock.build.pending import Pending
from minidock.build.result import image_config
from minidock.build.schedule import Schedule
from minidock.build.tools import Tools
from minidock.dockerfile.parser import Dockerfile, parse
from minidock.errors import MinidockError
from minidock.store.blobs import Blobs
from minidock.store.images import tag_name
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from minidock.build.context import Context
    from minidock.build.graph import StageNode
    from minidock.build.progress import Progress
    from minidock.build.request import BuildRequest
    from minidock.build.tools import StageResult
    from minidock.build.work import RunStep
    from minidock.dockerfile.checks.subject import StageFacts
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
) -> Image:
    """Build the image that ``request`` asks for and give it its tags.

    ``open_run`` gives what runs the commands of RUN, anew in each process that does; ``pull`` fetches an image that the
    store has not; ``export`` does something else with the finished image than to put it into the store. Stages that do
    not need each other run in processes of their own, if the request allows several jobs. Nothing is stored under a
    name unless every step succeeded; the layers of those that did serve the next build.

    Raises BuildError for a step that fails and for what is not executed, both with their place, DockerfileError for
    what cannot be parsed, UsageError for a context, Dockerfile or tag that makes no sense.
    """
    tags = [tag_name(tag) for tag in request.tags]
    blobs, cache = Blobs(root), BuildCache(root)
    named = named_contexts(request)
    with (
        Staging(root, "build") as staging,
        open_contexts(request, named, rootfs=rootfs, staging=staging, progress=progress) as contexts,
        open_run() as run,
        Pending(blobs, cache) as pending,
    ):
        dockerfile = _load(request, contexts.main, progress)
        target = find_target(dockerfile, request.target)
        arguments = global_arguments(request, dockerfile)
        checks = Checks(dockerfile, request, arguments=arguments, rules=contexts.main.rules)
        dockerfile = without_replaced(dockerfile, contexts)
        bases = Bases(images, pull, progress=progress, staging=staging, always_pull=request.pull)
        with checks.told(progress) as facts:
            nodes = build_graph(dockerfile, arguments.scope)
            dispatcher = Dispatcher(
                dockerfile, nodes, arguments=arguments, bases=bases, request=request, contexts=contexts
            )
            order = _dispatch(dispatcher, nodes, target, facts)
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
        )
        labels = {index: _label(dockerfile, index) for index in order}
        results = _run(tools, dispatcher, labels, root=root, open_run=open_run, jobs=request.jobs)
        config = image_config(dispatcher.states, results, target, cache, request)
        inherited = inherited_layers(dispatcher.states, target)
        finished = Finished(config, results[target].layers, tuple(tags), staging, progress, inherited)
        return export(finished) if export is not None else store_image(finished, images)


def _dispatch(dispatcher: Dispatcher, nodes: Sequence[StageNode], target: int, facts: list[StageFacts]) -> list[int]:
    """Read the stages that ``target`` needs, telling ``facts`` of each; their numbers in the order of building."""
    for index in reachable(target, lambda number: nodes[number].needs):
        dispatcher.refuse(index)
    order = reachable(target, dispatcher.needs)
    for index in order:
        facts.append(dispatcher.facts(index))
        dispatcher.dispatch(index)
    return order


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


def _load(request: BuildRequest, context: Context, progress: Progress) -> Dockerfile:
    found = read_dockerfile(request, context)
    with _told(progress, f"[internal] load build definition from {found.filename}"):
        dockerfile = parse(found.text, filename=found.filename)
    with _told(progress, "[internal] load .dockerignore"):
        context.rules = read_rules(context, found, ignorefile=request.ignorefile)
    return dockerfile


@contextmanager
def _told(progress: Progress, title: str) -> Iterator[None]:
    step = progress.step(title)
    try:
        yield
    except MinidockError as error:
        step.error(error.message)
        raise
    step.done()


def _label(dockerfile: Dockerfile, index: int) -> str:
    """What stands before ``2/4`` in the progress: the stage's name, its number, nothing for the only one."""
    name = dockerfile.stages[index].name
    if name or len(dockerfile.stages) == 1:
        return f"{name} " if name else ""
    return f"stage-{index} "
