"""Reading the stages that a target needs: refusals first, then each stage's state from its instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.arguments import host_platform, is_host_platform
from minidock.build.copying import add_copy
from minidock.build.executors.find import executor_of, refusal_of, word_of
from minidock.build.failures import build_error
from minidock.build.graph import SCRATCH, copied_from, stage_of
from minidock.build.state import Base, StageState, environment
from minidock.build.work import Source
from minidock.dockerfile.fields import expanded
from minidock.dockerfile.instructions import Arg, Copy, Location, Onbuild
from minidock.dockerfile.parser import parse_trigger
from minidock.errors import BuildError, DockerfileError, MinidockError
from minidock.model.oci import ImageConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from minidock.build.arguments import Arguments
    from minidock.build.bases import Bases
    from minidock.build.contexts import Contexts
    from minidock.build.graph import StageNode
    from minidock.build.request import BuildRequest
    from minidock.dockerfile.checks.subject import StageFacts
    from minidock.dockerfile.instructions import Instruction
    from minidock.dockerfile.parser import Dockerfile
    from minidock.store.images import Image, Images


class Dispatcher:
    """Makes the states of stages. A stage's base must have its state before."""

    __slots__ = ("_arguments", "_bases", "_contexts", "_dockerfile", "_nodes", "_request", "states")

    def __init__(
        self,
        dockerfile: Dockerfile,
        nodes: Sequence[StageNode],
        *,
        arguments: Arguments,
        bases: Bases | Images,
        request: BuildRequest,
        contexts: Contexts | None = None,
    ) -> None:
        self._dockerfile = dockerfile
        self._nodes = nodes
        self._arguments = arguments
        self._bases = bases
        self._request = request
        self._contexts = contexts
        self.states: dict[int, StageState] = {}

    def refuse(self, index: int) -> None:
        """Raise BuildError for whatever in the stage is parsed but not executed, by name and with its line."""
        node = self._nodes[index]
        if node.platform and not is_host_platform(node.platform):
            raise self._refused(
                node.stage.location, f"FROM --platform={node.platform}", f"this host is {host_platform()}"
            )
        for instruction in node.stage.instructions:
            self._refuse(instruction)

    def _refuse(self, instruction: Instruction) -> None:
        try:
            refused = refusal_of(instruction)
        except DockerfileError as error:
            raise build_error(self._dockerfile.source, instruction.location, error) from None
        if refused:
            raise self._refused(instruction.location, f"{word_of(instruction)} {refused}", "")

    def _refused(self, location: Location, what: str, hint: str) -> BuildError:
        error = MinidockError(f"{what} is not executed by minidock yet", hint=hint)
        return build_error(self._dockerfile.source, location, error)

    def needs(self, index: int) -> Iterable[int]:
        """The stages that a stage needs, those of the triggers in its base image too."""
        node = self._nodes[index]
        return {*node.needs, *copied_from(self._dockerfile, index, self._triggers(node))}

    def facts(self, index: int) -> StageFacts:
        """What the checks need to know of a stage. Raises BuildError as ``dispatch`` does."""
        from minidock.dockerfile.checks.subject import StageFacts

        node = self._nodes[index]
        triggers = tuple(self._triggers(node))
        platform = node.platform or host_platform()
        if node.base >= 0:
            return StageFacts(node.stage, node.base, triggers=triggers)
        if node.reference == SCRATCH or self._files(node.reference):
            return StageFacts(node.stage, env=environment({}), triggers=triggers)
        config = self._image(node).config
        built_for = [config.raw.get("os"), config.raw.get("architecture"), config.raw.get("variant")]
        return StageFacts(
            node.stage,
            env=environment(config.config),
            has_shell=bool(config.config.get("Shell")),
            triggers=triggers,
            image_platform="/".join(str(part) for part in built_for if part) if all(built_for[:2]) else "",
            platform=platform,
        )

    def dispatch(self, index: int) -> StageState:
        """Apply the triggers of the stage's base and its instructions. Raises BuildError with the place."""
        node = self._nodes[index]
        state = self._begin(node)
        # Stored triggers are written with backslashes, whatever this file's escape character is.
        state.escape = "\\"
        self._apply(self._triggers(node), state)
        state.escape = self._dockerfile.escape
        self._apply(node.stage.instructions, state)
        self.states[index] = state
        return state

    def _apply(self, instructions: Iterable[Instruction], state: StageState) -> None:
        for instruction in instructions:
            try:
                if isinstance(instruction, Arg):
                    executor_of(instruction).apply(instruction, state)
                else:
                    done = expanded(instruction, state.env, escape=state.escape)
                    executor_of(instruction).apply(done, state)
            except MinidockError as error:
                raise build_error(self._dockerfile.source, instruction.location, error) from error

    def _triggers(self, node: StageNode) -> list[Instruction]:
        """What ONBUILD of the base asks for, at the place of the stage's FROM."""
        if node.base >= 0:
            stage = self._nodes[node.base].stage
            texts = [instruction.text for instruction in stage.instructions if isinstance(instruction, Onbuild)]
        elif node.reference == SCRATCH or self._files(node.reference):
            texts = []
        else:
            texts = list(self._image(node).config.config.get("OnBuild") or [])
        location = node.stage.location
        found: list[Instruction] = []
        for text in texts:
            try:
                trigger = parse_trigger(text)
            except DockerfileError as error:
                reason = MinidockError(f"the base's ONBUILD {text!r} cannot be read: {error.message}", hint=error.hint)
                raise build_error(self._dockerfile.source, location, reason) from None
            place = Location(location.line, location.end_line, trigger.location.text)
            trigger = trigger._replace(location=place)
            self._refuse(trigger)
            found.append(trigger)
        return found

    def _image(self, node: StageNode) -> Image:
        try:
            return self._named_image(node.reference) or self._bases.get(node.reference)
        except MinidockError as error:
            raise build_error(self._dockerfile.source, node.stage.location, error) from error

    def _named_image(self, name: str) -> Image | None:
        """The image that a named context is. Raises MinidockError."""
        context = self._contexts.find(name) if self._contexts is not None else ""
        return self._contexts.image(context, self._bases) if context and self._contexts is not None else None

    def _files(self, name: str) -> str:
        """The named context that ``name`` means, where that is files and no image; else empty."""
        context = self._contexts.find(name) if self._contexts is not None else ""
        return context if context and self._contexts is not None and self._contexts.is_files(context) else ""

    def _begin(self, node: StageNode) -> StageState:
        parent = self.states[node.base] if node.base >= 0 else None
        if parent is not None:
            base, config = Base(node.reference, stage=node.base), parent.config.copy()
        elif node.reference == SCRATCH or self._files(node.reference):
            base = Base(SCRATCH)
            config = ImageConfig.new(architecture=host_platform().split("/")[1])
            config.config["WorkingDir"] = "/"
        else:
            image = self._image(node)
            config = image.config.copy()
            base = Base(node.reference, image.manifest.layers, config.diff_ids, created=config.created)
        config.config.pop("OnBuild", None)
        state = StageState(
            index=node.position,
            name=node.name,
            base=base,
            config=config,
            arguments=self._arguments,
            network=self._request.network,
            ulimits=self._request.ulimits,
            settings=self._request.run,
            escape=self._dockerfile.escape,
            find_source=lambda name: self._source(node.position, name),
            parent=parent,
        )
        if node.base < 0 and self._files(node.reference):
            self._copy_all(node, state)
        return state

    def _copy_all(self, node: StageNode, state: StageState) -> None:
        """A stage that stands on files begins with a copy of them."""
        everything = Copy((".",), "/", node.stage.location)
        try:
            add_copy("COPY", everything, state, self._source(node.position, node.reference), unpack=False)
        except MinidockError as error:
            raise build_error(self._dockerfile.source, node.stage.location, error) from error

    def _source(self, index: int, name: str) -> Source:
        number = stage_of(self._dockerfile, index, name)
        if number >= 0:
            return Source(stage=number, name=f"the stage {name}")
        files = self._files(name)
        if files:
            assert self._contexts is not None
            self._contexts.load(files)
            return Source(context=files, name=f"the context {name}")
        image = self._named_image(name) or self._bases.get(name)
        return Source(image=image.config.diff_ids, name=f"the image {name}")
