"""A stage while its instructions are applied: what the text alone decides, before anything runs.

Nothing that a step does to files changes what a later instruction means. So each stage is first read to its end: the
configuration, the environment of each step, the history. What must then be done to files is a list of steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from minidock.build.request import RunSettings
from minidock.model.spec import DEFAULT_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from minidock.build.arguments import Arguments
    from minidock.build.cache import Key
    from minidock.build.work import Source, StepWork
    from minidock.dockerfile.instructions import Location
    from minidock.model.oci import Descriptor, ImageConfig

_DEFAULT_SHELL = ("/bin/sh", "-c")
# What docker's older configurations hold about the container that made them.
_FOREIGN_FIELDS = ("id", "parent", "container", "container_config", "docker_version")


class Step(Protocol):
    """Work on files that one instruction asks for."""

    @property
    def title(self) -> str:
        """The instruction as the progress shows it."""

    def keys(self, work: StepWork) -> Iterator[Key]:
        """The keys under which the result may be known, the cheapest to find out first."""

    def perform(self, work: StepWork) -> Collection[str]:
        """Change the files. Returns the paths of mount points that were made only for the step's sake.

        Raises MinidockError or OSError.
        """


class Line(NamedTuple):
    """A line of the history. ``step`` is None where no file changes; ``location`` is the instruction's place."""

    created_by: str
    step: Step | None
    location: Location


class Base(NamedTuple):
    """What a stage stands on: an image's layers, or those of an earlier stage, whose number is ``stage``.

    For an image (or ``scratch``: no layers) ``stage`` is -1. ``layers`` are as its manifest has them, ``diff_ids`` the
    same layers plain; ``created`` is its own time, perhaps empty.
    """

    reference: str
    layers: tuple[Descriptor, ...] = ()
    diff_ids: tuple[str, ...] = ()
    stage: int = -1
    created: str = ""


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    """The environment that an image's configuration gives; PATH is always in it."""
    name, _, value = DEFAULT_PATH.partition("=")
    found = {name: value}
    for text in config.get("Env") or []:
        name, _, value = text.partition("=")
        found[name] = value
    return found


class StageState:
    """A stage: ``config`` is what its image will say, ``env`` what its steps see (ENV and ARG, the later one wins),
    ``declared`` the ARGs in the order of declaration, with their values if they have any, ``lines`` its history.

    ``find_source`` gives what ``--from=NAME`` means in this stage; ``parent`` is the stage that it stands on, if it is
    one; ``platform`` is what its commands are programs for. ``cmd_set`` says whether this stage had a CMD of its
    own: an ENTRYPOINT drops an inherited one.
    """

    __slots__ = (
        "arguments",
        "base",
        "cmd_set",
        "config",
        "declared",
        "env",
        "escape",
        "find_source",
        "index",
        "lines",
        "name",
        "network",
        "parent",
        "platform",
        "settings",
        "ulimits",
    )

    def __init__(
        self,
        *,
        index: int,
        name: str,
        base: Base,
        config: ImageConfig,
        arguments: Arguments,
        network: str,
        escape: str,
        find_source: Callable[[str], Source],
        parent: StageState | None = None,
        platform: str = "",
        ulimits: tuple[str, ...] = (),
        settings: RunSettings | None = None,
    ) -> None:
        self.index = index
        self.name = name
        self.base = base
        self.config = config
        self.arguments = arguments
        self.network = network
        self.ulimits = ulimits
        self.settings = settings or RunSettings()
        self.escape = escape
        self.find_source = find_source
        self.parent = parent
        self.platform = platform
        self.cmd_set = False
        self.lines: list[Line] = []
        self.declared: dict[str, str] = dict(parent.declared) if parent else {}
        self.env: dict[str, str] = dict(parent.env) if parent else {}
        if parent is None:
            self._begin()

    def _begin(self) -> None:
        for field in _FOREIGN_FIELDS:
            self.config.raw.pop(field, None)
        self.env = environment(self.config.config)
        if not any(text.partition("=")[0] == "PATH" for text in self.config.config.get("Env") or []):
            self.set_env("PATH", self.env["PATH"])

    def set_env(self, name: str, value: str) -> None:
        """ENV: for the steps from here on and for the image."""
        self.env[name] = value
        values: dict[str, str] = {}
        for text in [*(self.config.config.get("Env") or []), f"{name}={value}"]:
            key, _, values[key] = text.partition("=")
        self.config.config["Env"] = [f"{key}={text}" for key, text in values.items()]

    def declare(self, name: str, value: str | None) -> None:
        """ARG: for the steps from here on, not for the image."""
        if value is not None:
            self.env[name] = value
        self.declared[name] = value or ""

    @property
    def shell(self) -> tuple[str, ...]:
        """What runs the shell form."""
        return tuple(self.config.config.get("Shell") or _DEFAULT_SHELL)

    @property
    def workdir(self) -> str:
        """The working directory, absolute."""
        return str(self.config.config.get("WorkingDir") or "/")

    @property
    def user(self) -> str:
        """``user[:group]``, empty for root."""
        return str(self.config.config.get("User") or "")

    def add_line(self, created_by: str, location: Location, step: Step | None = None) -> None:
        """A line of history, with a step where the instruction is about files."""
        self.lines.append(Line(created_by, step, location))

    @property
    def steps(self) -> list[Line]:
        """The lines that have a step."""
        return [line for line in self.lines if line.step is not None]
