"""The build: from a request to an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.arguments import Arguments
from minidock.build.bases import Bases
from minidock.build.cache import BuildCache
from minidock.build.context import Context, check_text, read_dockerfile, read_rules
from minidock.build.dispatch import Dispatcher
from minidock.build.graph import build_graph, find_target, reachable
from minidock.build.pending import Pending
from minidock.build.result import image_config
from minidock.build.solver import Solver, Tools
from minidock.dockerfile.parser import Dockerfile, parse
from minidock.errors import BuildError, DockerfileError
from minidock.store.blobs import Blobs
from minidock.store.images import tag_name
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.build.progress import Progress
    from minidock.build.request import BuildRequest
    from minidock.build.work import RunStep
    from minidock.model.oci import ImageConfig
    from minidock.rootfs import Rootfs
    from minidock.store.images import Image, Images
    from minidock.store.layout import DataRoot


def build(
    request: BuildRequest,
    *,
    root: DataRoot,
    images: Images,
    rootfs: Rootfs,
    run: RunStep,
    pull: Callable[[str], Image],
    progress: Progress,
) -> Image:
    """Build the image that ``request`` asks for and give it its tags.

    ``run`` runs the commands of RUN; ``pull`` fetches an image that the store has not. Nothing is stored under a name
    unless every step succeeded; the layers of those that did serve the next build.

    Raises BuildError for a step that fails and for what is not executed, both with their place, DockerfileError for
    what cannot be parsed, UsageError for a context, Dockerfile or tag that makes no sense.
    """
    tags = [tag_name(tag) for tag in request.tags]
    blobs, cache = Blobs(root), BuildCache(root)
    with Context(request.context) as context, Staging(root, "build") as staging, Pending(blobs, cache) as pending:
        dockerfile = _load(request, context, progress)
        target = find_target(dockerfile, request.target)
        arguments = _global_arguments(request, dockerfile)
        nodes = build_graph(dockerfile, arguments.scope)
        bases = Bases(images, pull, progress=progress, staging=staging, always_pull=request.pull)
        dispatcher = Dispatcher(dockerfile, nodes, arguments=arguments, bases=bases, request=request)
        for index in reachable(target, lambda number: nodes[number].needs):
            dispatcher.refuse(index)
        order = reachable(target, dispatcher.needs)
        for index in order:
            dispatcher.dispatch(index)
        tools = Tools(
            rootfs=rootfs,
            blobs=blobs,
            cache=cache,
            pending=pending,
            staging=staging,
            context=context,
            run=run,
            progress=progress,
            text=dockerfile.source,
            no_cache=request.no_cache,
        )
        solver = Solver(tools)
        for index in order:
            solver.solve(dispatcher.states[index], label=_label(dockerfile, index))
        if unused := arguments.unused():
            progress.warning(f"one or more build-args [{' '.join(unused)}] were not consumed")
        config = image_config(
            dispatcher.states[target],
            dispatcher.states,
            solver.results,
            cache,
            labels=request.labels,
            no_cache=request.no_cache,
        )
        return _export(config, solver, target, images=images, tags=tags, progress=progress)


def _load(request: BuildRequest, context: Context, progress: Progress) -> Dockerfile:
    found = read_dockerfile(request, context)
    step = progress.step(f"[internal] load build definition from {found.filename}")
    dockerfile = parse(found.text, filename=found.filename)
    step.done()
    step = progress.step("[internal] load .dockerignore")
    context.rules = read_rules(context, found)
    step.done()
    _report_checks(dockerfile, progress)
    return dockerfile


def _report_checks(dockerfile: Dockerfile, progress: Progress) -> None:
    """Show the parser's findings, as ``# check=skip=NAME,...;error=true`` says."""
    options = dict(part.strip().partition("=")[::2] for part in dockerfile.directives.check.split(";") if part.strip())
    skipped = {name.strip() for name in options.get("skip", "").split(",")}
    found = [f for f in dockerfile.warnings if f.check not in skipped and "all" not in skipped]
    for finding in found:
        progress.warning(f"{finding.check}: {finding.message} (line {finding.line})")
    if found and options.get("error", "").lower() == "true":
        error = dockerfile.source.error(f"{found[0].check}: {found[0].message}", found[0].line)
        raise BuildError(error.message, filename=error.filename, line=error.line, excerpt=error.excerpt)


def _global_arguments(request: BuildRequest, dockerfile: Dockerfile) -> Arguments:
    for name, value in request.build_args:
        check_text(f"{name}={value}", what=f"the build argument {name!r}")
    for name, value in request.labels:
        check_text(f"{name}={value}", what=f"the label {name!r}")
    arguments = Arguments(request.build_args, target=request.target)
    for instruction in dockerfile.global_args:
        try:
            arguments.declare_global(instruction, escape=dockerfile.escape)
        except DockerfileError as error:
            raise dockerfile.source.locate(error, instruction.location) from None
    return arguments


def _label(dockerfile: Dockerfile, index: int) -> str:
    """What stands before ``2/4`` in the progress: the stage's name, its number, nothing for the only one."""
    name = dockerfile.stages[index].name
    if name or len(dockerfile.stages) == 1:
        return f"{name} " if name else ""
    return f"stage-{index} "


def _export(
    config: ImageConfig, solver: Solver, target: int, *, images: Images, tags: list[str], progress: Progress
) -> Image:
    step = progress.step("exporting to image")
    image = images.commit(config, solver.results[target].layers, names=tags)
    lines = [f"writing image {image.id}", *(f"naming to {tag}" for tag in tags)]
    step.output("".join(f"{line}\n" for line in lines).encode())
    step.done()
    return image
