"""Reading the stages that a target needs: refusals first, then each stage's state from its instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.arguments import host_platform, platform_name
from minidock.build.executors.find import executor_of
from minidock.build.export import Inputs
from minidock.build.failures import build_error
from minidock.build.graph import SCRATCH, copied_from, stage_of
from minidock.build.image_platforms import check_serves, foreign_here, new_config, own_platform, set_platform
from minidock.build.state import Base, StageState, environment
from minidock.build.work import Source
from minidock.dockerfile.fields import expanded
from minidock.dockerfile.instructions import Arg, Copy, Location, Onbuild
from minidock.dockerfile.parser import parse_trigger
from minidock.errors import DockerfileError, MinidockError, UsageError

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
    from minidock.model.oci import ImageConfig
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

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH of this build, in seconds."""
        return self._arguments.epoch

    @property
    def inputs(self) -> Inputs:
        """What was read for the build."""
        return Inputs(self._dockerfile.source, getattr(self._bases, "found", ()))

    def refuse(self, index: int) -> None:
        """Raise BuildError, with its line, for what of the stage is not executed and for a FROM of no platform."""
        node = self._nodes[index]
        if node.stage.platform:
            self._check_platform(node)
        for instruction in node.stage.instructions:
            self._refuse(instruction)

    def _check_platform(self, node: StageNode) -> None:
        """Refuse a FROM whose ``--platform`` comes to nothing, or to no platform."""
        try:
            if not node.platform:
                raise UsageError(
                    f"the platform {node.stage.platform!r} of FROM is empty after expansion",
                    hint="declare the ARG before the first FROM, or leave out --platform",
                )
            platform_name(node.platform)
        except UsageError as error:
            raise build_error(self._dockerfile.source, node.stage.location, error) from None

    def _asked(self, node: StageNode) -> str:
        """The platform that somebody asked for: this FROM, that of the stage beneath, or the build; empty if nobody."""
        if node.base < 0 and node.reference == SCRATCH:
            # As in BuildKit, nothing is for the platform that the build is for, whatever FROM says.
            return self._request.platform
        if node.platform:
            return platform_name(node.platform)
        return self._asked(self._nodes[node.base]) if node.base >= 0 else self._request.platform

    def _refuse(self, instruction: Instruction) -> None:
        try:
            executor_of(instruction)
        except DockerfileError as error:
            raise build_error(self._dockerfile.source, instruction.location, error) from None

    def needs(self, index: int) -> Iterable[int]:
        """The stages that a stage needs, those of the triggers in its base image too."""
        node = self._nodes[index]
        return {*node.needs, *copied_from(self._dockerfile, index, self._triggers(node))}

    def facts(self, index: int) -> StageFacts:
        """What the checks need to know of a stage. Raises BuildError as ``dispatch`` does."""
        from minidock.dockerfile.checks.subject import StageFacts

        node = self._nodes[index]
        triggers = tuple(self._triggers(node))
        if node.base >= 0:
            return StageFacts(node.stage, node.base, triggers=triggers)
        if node.reference == SCRATCH or self._files(node.reference):
            return StageFacts(node.stage, env=environment({}), triggers=triggers)
        config = self._image(node).config
        asked = self._asked(node)
        return StageFacts(
            node.stage,
            env=environment(config.config),
            has_shell=bool(config.config.get("Shell")),
            triggers=triggers,
            image_platform=own_platform(config),
            platform=asked or (host_platform() if foreign_here(config) else own_platform(config)),
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
            return self._find_image(node.reference, self._asked(node))
        except MinidockError as error:
            raise build_error(self._dockerfile.source, node.stage.location, error) from error

    def _find_image(self, name: str, platform: str) -> Image:
        """The image that a name means, be it a named context's. Raises MinidockError, also where it is for another
        platform than the one that is asked for, if one is."""
        context = self._contexts.find(name) if self._contexts is not None else ""
        found = None
        if context and self._contexts is not None:
            found = self._contexts.image(context, self._bases, platform=platform or host_platform())
        image = found or self._bases.get(name)
        if platform:
            check_serves(image, name, platform)
        return image

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
            config = new_config(self._asked(node) or host_platform())
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
            platform=self._platform(node, config, parent),
        )
        if node.base < 0 and self._files(node.reference):
            self._copy_all(node, state)
        return state

    def _platform(self, node: StageNode, config: ImageConfig, parent: StageState | None) -> str:
        """What a stage's commands are programs for: what was asked for, else what its base is for."""
        return self._asked(node) or (parent.platform if parent is not None else own_platform(config) or host_platform())

    def finish(self, index: int) -> None:
        """Let the image of a stage be for the platform that was asked for, whatever its base is for, and leave out what
        is not wanted."""
        request, config = self._request, self.states[index].config
        if request.platform:
            set_platform(config, request.platform)
        if request.unset_env and config.config.get("Env"):
            kept = [text for text in config.config["Env"] if text.partition("=")[0] not in request.unset_env]
            config.config["Env"] = kept
        if request.unset_labels and config.config.get("Labels"):
            labels = {name: text for name, text in config.config["Labels"].items() if name not in request.unset_labels}
            config.config["Labels"] = labels
            if not labels:
                config.config.pop("Labels")

    def _copy_all(self, node: StageNode, state: StageState) -> None:
        """A stage that stands on files begins with a copy of them."""
        everything = Copy((".",), "/", node.stage.location)
        try:
            from minidock.build.copying import add_copy

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
        image = self._find_image(name, self._request.platform)
        return Source(image=image.config.diff_ids, name=f"the image {name}")
