"""Reading what is to be built: the Dockerfile, and the stages that the target needs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.arguments import global_arguments
from minidock.build.bases import Bases
from minidock.build.checks import Checks
from minidock.build.context import read_dockerfile, read_rules
from minidock.build.contexts import without_replaced
from minidock.build.dispatch import Dispatcher
from minidock.build.graph import build_graph, find_target, reachable, stages_named
from minidock.dockerfile.parser import Dockerfile, parse
from minidock.errors import MinidockError
from minidock.model.digest import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from minidock.build.context import Context
    from minidock.build.contexts import Contexts
    from minidock.build.graph import StageNode
    from minidock.build.progress import Progress
    from minidock.build.request import BuildRequest
    from minidock.dockerfile.checks.subject import StageFacts
    from minidock.store.images import Image, Images
    from minidock.store.staging import Staging


class Stages(NamedTuple):
    """What is to be built: ``labels`` are what the progress calls the stages that ``target`` needs, by their numbers,
    in the order of building; the dispatcher has their states."""

    dockerfile: Dockerfile
    target: int
    dispatcher: Dispatcher
    labels: Mapping[int, str]


def read_stages(
    request: BuildRequest,
    contexts: Contexts,
    *,
    images: Images,
    pull: Callable[[str], Image],
    staging: Staging,
    progress: Progress,
) -> Stages:
    """Read the Dockerfile of ``request`` and the stages that its target needs, with what the checks have to say told to
    ``progress``. ``images`` has the images that they stand on, ``pull`` fetches what it has not.

    Raises DockerfileError, and BuildError for what is not executed, both with their place, UsageError.
    """
    dockerfile = _load(request, contexts.main, progress)
    target = find_target(dockerfile, request.target)
    arguments = global_arguments(request, dockerfile)
    checks = Checks(dockerfile, request, arguments=arguments, rules=contexts.main.rules)
    dockerfile = without_replaced(dockerfile, contexts)
    bases = Bases(images, pull, progress=progress, staging=staging, always_pull=request.pull)
    with checks.told(progress) as facts:
        nodes = build_graph(dockerfile, arguments.scope)
        dispatcher = Dispatcher(dockerfile, nodes, arguments=arguments, bases=bases, request=request, contexts=contexts)
        order = _dispatch(dispatcher, nodes, target, facts)
    return Stages(dockerfile, target, dispatcher, {index: _label(dockerfile, index) for index in order})


def project_of(request: BuildRequest) -> str:
    """What tells builds of one Dockerfile and context from those of others: no more than that can be read from it."""
    directory = os.path.isdir(request.context)
    parts = [os.path.realpath(request.context) if directory else request.context, request.dockerfile]
    return digest_of("\0".join(parts).encode("utf-8", "surrogateescape"))[7:23]


def uncached_stages(request: BuildRequest, dockerfile: Dockerfile, progress: Progress) -> frozenset[int]:
    """The stages of ``--no-cache-filter``, by number: their steps all run. Names that no stage has are told of."""
    if not request.no_cache_filter:
        return frozenset()
    numbers, unknown = stages_named(dockerfile, request.no_cache_filter)
    for sentence in unknown:
        progress.warning(f"--no-cache-filter: {sentence}")
    return numbers


def _dispatch(dispatcher: Dispatcher, nodes: Sequence[StageNode], target: int, facts: list[StageFacts]) -> list[int]:
    """Read the stages that ``target`` needs, telling ``facts`` of each; their numbers in the order of building."""
    for index in reachable(target, lambda number: nodes[number].needs):
        dispatcher.refuse(index)
    order = reachable(target, dispatcher.needs)
    for index in order:
        facts.append(dispatcher.facts(index))
        dispatcher.dispatch(index)
    dispatcher.finish(target)
    return order


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
