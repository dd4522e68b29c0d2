"""The checks of a build: what they are told of it, and what becomes of what they find."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.arguments import CHECK_ARGUMENT, global_arguments
from minidock.build.context import read_dockerfile, read_rules
from minidock.build.contexts import Contexts, without_replaced
from minidock.build.dispatch import Dispatcher
from minidock.build.graph import build_graph, find_target, reachable
from minidock.build.opening import open_context
from minidock.build.sources.fetcher import Fetcher
from minidock.dockerfile.checks.settings import parse_settings
from minidock.dockerfile.excerpt import Excerpts
from minidock.dockerfile.parser import parse
from minidock.errors import BuildError, DockerfileError, MinidockError
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from minidock.build.arguments import Arguments
    from minidock.build.progress import Progress
    from minidock.build.request import BuildRequest
    from minidock.build.sources.named import Where
    from minidock.dockerfile.checks.subject import StageFacts
    from minidock.dockerfile.ignore import IgnoreRules
    from minidock.dockerfile.instructions import Finding
    from minidock.dockerfile.parser import Dockerfile
    from minidock.rootfs import Rootfs
    from minidock.store.images import Images
    from minidock.store.layout import DataRoot


class Checked(NamedTuple):
    """Something that a check found: its name and what it is about, what it found here, and where: the excerpt is as an
    error has it."""

    check: str
    description: str
    message: str
    line: int
    excerpt: str


class Report(NamedTuple):
    """What a look at a Dockerfile found, in the order of its lines, and the error that a build ends with, if any."""

    found: tuple[Checked, ...]
    error: DockerfileError | None


class Checks:
    """The checks of one Dockerfile, as its ``check`` directive or the build argument in its stead wants them."""

    __slots__ = ("_arguments", "_dockerfile", "_request", "_rules", "_settings")

    def __init__(
        self, dockerfile: Dockerfile, request: BuildRequest, *, arguments: Arguments, rules: IgnoreRules | None
    ) -> None:
        """Raises DockerfileError for a directive that cannot be read."""
        self._dockerfile = dockerfile
        self._request = request
        self._arguments = arguments
        self._rules = rules
        given = arguments.given.get(CHECK_ARGUMENT)
        try:
            self._settings = parse_settings(dockerfile.directives.check if given is None else given)
        except DockerfileError as error:
            raise dockerfile.source.error(error.message, 0 if given else _line(dockerfile), hint=error.hint) from None

    def find(self, facts: Iterable[StageFacts]) -> tuple[list[Finding], DockerfileError | None]:
        """What is found, in the order of the file, and what a build would fail with. ``facts`` are of the stages that
        are looked at, each after the one that it stands on; without any, what the text alone tells is found."""
        if self._settings.nothing:
            return [], None
        from minidock.dockerfile.checks.find import find
        from minidock.dockerfile.checks.subject import Subject, read_stages

        scope = self._arguments.scope
        try:
            defaults = global_arguments(self._request, self._dockerfile, defaults=True).scope
        except DockerfileError:
            # ${NAME:?message} wants the argument to be given.
            defaults = scope
        stages = read_stages(self._dockerfile, facts, scope=scope, given=self._arguments.given)
        # What is left out itself may hold what is not: then a name of it is no mistake.
        ignored = self._rules.prunes if self._rules else None
        found = find(Subject(self._dockerfile, scope, defaults, stages, ignored), self._settings)
        return found, next((view.error for view in stages if view.error), None)

    @contextmanager
    def told(self, progress: Progress) -> Iterator[list[StageFacts]]:
        """When the block ends, tell what is found in the stages whose facts it adds to the list, as warnings, and which
        build arguments nothing declared.

        A block that fails fails all the same: what is told may be the reason. Raises BuildError where the directive
        makes an error of what is found.
        """
        facts: list[StageFacts] = []
        try:
            yield facts
        except MinidockError:
            # A FROM that cannot be expanded ends the looking, too.
            with suppress(DockerfileError):
                self._tell(progress, facts)
            raise
        found = self._tell(progress, facts)
        if unused := self._arguments.unused():
            progress.warning(f"one or more build-args [{' '.join(unused)}] were not consumed")
        if found and self._settings.error:
            names = ", ".join(sorted({finding.check for finding in found}))
            place = self._dockerfile.source.error("", found[0].line, found[0].end_line)
            raise BuildError(
                f"check=error=true makes errors of what was found: {names}",
                filename=place.filename,
                line=place.line,
                end_line=place.end_line,
                excerpt=place.excerpt,
            )

    def _tell(self, progress: Progress, facts: Iterable[StageFacts]) -> list[Finding]:
        found, _ = self.find(facts)
        for finding in found:
            progress.warning(f"{finding.check}: {finding.message} (line {finding.line})")
        return found


def check(request: BuildRequest, *, root: DataRoot, images: Images, rootfs: Rootfs, progress: Progress) -> Report:
    """What the checks find in a Dockerfile: in the stages that ``request.target`` needs, without a target in all.

    Nothing is built and nothing pulled: where a base image is not in the store, what depends on it is not looked at.
    Raises UsageError and DockerfileError as a build does.
    """
    named = named_contexts(request)
    with (
        Staging(root, "check") as staging,
        open_context(request, fetcher=(fetcher := Fetcher(staging)), rootfs=rootfs, progress=progress) as context,
        Contexts(context, named, fetcher=fetcher, rootfs=rootfs, staging=staging, progress=progress) as contexts,
    ):
        text = read_dockerfile(request, context)
        dockerfile = parse(text.text, filename=text.filename)
        rules = read_rules(context, text, ignorefile=request.ignorefile)
        arguments = global_arguments(request, dockerfile)
        checks = Checks(dockerfile, request, arguments=arguments, rules=rules)
        built = without_replaced(dockerfile, contexts)
        nodes = build_graph(built, arguments.scope)
        dispatcher = Dispatcher(built, nodes, arguments=arguments, bases=images, request=request, contexts=contexts)
        order: Iterable[int] = range(len(nodes))
        if request.target:
            order = reachable(find_target(dockerfile, request.target), lambda number: nodes[number].needs)
        found, error = checks.find([_facts(dispatcher, built, index) for index in order])
    excerpts = Excerpts(dockerfile.source.filename, dockerfile.source.text)
    return Report(tuple(_checked(finding, excerpts) for finding in found), error)


def named_contexts(request: BuildRequest) -> dict[str, Where]:
    """The named contexts of ``request``. Raises UsageError for one that makes no sense."""
    if not request.contexts:
        return {}
    from minidock.build.sources.named import parse_contexts

    return parse_contexts(request.contexts)


def _facts(dispatcher: Dispatcher, dockerfile: Dockerfile, index: int) -> StageFacts:
    try:
        return dispatcher.facts(index)
    except MinidockError:
        from minidock.dockerfile.checks.subject import StageFacts

        return StageFacts(dockerfile.stages[index])


def _checked(finding: Finding, excerpts: Excerpts) -> Checked:
    from minidock.dockerfile.checks.find import description_of

    excerpt = excerpts.of(finding.line, finding.end_line or finding.line)
    return Checked(finding.check, description_of(finding.check), finding.message, finding.line, excerpt)


def _line(dockerfile: Dockerfile) -> int:
    """The line of the ``check`` directive: only directives stand before it."""
    lines = dockerfile.source.text.split("\n")
    return next(n for n, text in enumerate(lines, 1) if text.lstrip("# \t").lower().startswith("check"))
