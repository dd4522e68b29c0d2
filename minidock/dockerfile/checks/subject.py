"""What the checks look at: a Dockerfile, what a build knows besides its text, and each stage read to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from minidock.dockerfile.fields import expanded, expanded_arg
from minidock.dockerfile.instructions import Arg, Env, Finding, Instruction, Location, Shell, Stage, Workdir
from minidock.dockerfile.parser import Dockerfile
from minidock.dockerfile.words import split_blanks, split_flags, split_instruction
from minidock.errors import DockerfileError


class StageFacts(NamedTuple):
    """What a build knows of a stage besides its text.

    ``base`` is the number of the stage that it stands on, -1 for an image or ``scratch``. ``env`` is the environment
    of that image, None where it is not known: variables of that stage are then not checked. ``has_shell`` says whether
    the image's configuration names a SHELL, ``triggers`` are its ONBUILD instructions, ``image_platform`` is what the
    image is for (``linux/amd64``), ``platform`` what the stage is built for; both are empty where they are not known.
    """

    stage: Stage
    base: int = -1
    env: Mapping[str, str] | None = None
    has_shell: bool = False
    triggers: tuple[Instruction, ...] = ()
    image_platform: str = ""
    platform: str = ""


class Step(NamedTuple):
    """One instruction of a stage: ``written``, and ``done`` with its fields expanded.

    ``undefined`` are the variables that it names and nothing declared, ``known`` those that it could have meant;
    ``shell_set`` and ``workdir_set`` tell what the stage, or one that it stands on, has set before it.
    """

    written: Instruction
    done: Instruction
    undefined: tuple[str, ...]
    known: tuple[str, ...]
    shell_set: bool
    workdir_set: bool


class StageView(NamedTuple):
    """A stage with its steps, those of the base's triggers first.

    ``error`` is what a build of it fails with, where a word cannot be expanded: the first such, with its place.
    """

    facts: StageFacts
    steps: tuple[Step, ...]
    error: DockerfileError | None = None


class Subject(NamedTuple):
    """A Dockerfile under its checks.

    ``scope`` are the arguments that FROM sees, ``defaults`` the same without ``--build-arg``; ``stages`` are those that
    are built. ``ignored`` tells whether .dockerignore leaves a path of the context out, and everything below it.
    """

    dockerfile: Dockerfile
    scope: Mapping[str, str]
    defaults: Mapping[str, str]
    stages: tuple[StageView, ...] = ()
    ignored: Callable[[str], bool] | None = None


class Check(NamedTuple):
    """A check: its stable name, what it is about in one sentence, and ``find``, which gives messages with their place.

    An ``experimental`` one looks only where it is asked for.
    """

    name: str
    description: str
    find: Callable[[Subject], Iterable[tuple[str, Location]]]
    experimental: bool = False

    def findings(self, subject: Subject) -> Iterator[Finding]:
        """What the check finds, in the order of its looking."""
        for message, place in self.find(subject):
            yield Finding(self.name, message, place.line, place.end_line)


class Watched(Mapping[str, str]):
    """An environment that remembers which of its names were asked for, and which names it did not have."""

    __slots__ = ("_values", "found", "missed")

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.found: dict[str, None] = {}
        self.missed: dict[str, None] = {}

    def __getitem__(self, name: str) -> str:
        (self.found if name in self._values else self.missed)[name] = None
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def word_of(location: Location) -> str:
    """The instruction's word as it is written."""
    return split_instruction(location.text)[0]


def words_of_from(stage: Stage) -> tuple[str, ...]:
    """What follows FROM and its flags, as it is written."""
    return split_blanks(split_flags(split_instruction(stage.location.text)[1])[1])


def read_stages(
    dockerfile: Dockerfile, facts: Iterable[StageFacts], *, scope: Mapping[str, str], given: Mapping[str, str]
) -> tuple[StageView, ...]:
    """Read stages to their ends, each after the one that it stands on; ``given`` are the values of ``--build-arg``."""
    readers: dict[int, _Reader] = {}
    views: list[StageView] = []
    for fact in facts:
        reader = _Reader(dockerfile, fact, readers.get(fact.base), scope=scope, given=given)
        readers[fact.stage.position] = reader
        steps = [reader.step(trigger, "\\") for trigger in fact.triggers]
        steps += [reader.step(instruction, dockerfile.escape) for instruction in fact.stage.instructions]
        views.append(StageView(fact, tuple(steps), reader.error))
    return tuple(views)


class _Reader:
    """Follows what ENV, ARG, SHELL and WORKDIR of one stage do to the instructions after them."""

    __slots__ = ("declared", "dockerfile", "env", "error", "given", "scope", "shell_set", "sure", "workdir_set")

    def __init__(
        self,
        dockerfile: Dockerfile,
        facts: StageFacts,
        parent: _Reader | None,
        *,
        scope: Mapping[str, str],
        given: Mapping[str, str],
    ) -> None:
        self.dockerfile = dockerfile
        self.scope = scope
        self.given = given
        self.env: dict[str, str] = dict(parent.env if parent else facts.env or {})
        self.declared: set[str] = set(parent.declared) if parent else set()
        self.shell_set: bool = parent.shell_set if parent else facts.has_shell
        self.workdir_set: bool = parent.workdir_set if parent else False
        self.sure: bool = parent.sure if parent else facts.env is not None
        self.error: DockerfileError | None = None

    def step(self, instruction: Instruction, escape: str) -> Step:
        watched = Watched(self.env)
        shell_set, workdir_set = self.shell_set, self.workdir_set
        try:
            done = self._done(instruction, watched, escape)
        except DockerfileError as error:
            # In a stage whose base is not known, a variable of it may be all that is missing.
            if self.sure and self.error is None:
                self.error = self.dockerfile.source.locate(error, instruction.location)
            done = instruction
        missed = tuple(name for name in watched.missed if name not in self.declared) if self.sure else ()
        known = tuple(self.env) if missed else ()
        self._follow(instruction, done)
        return Step(instruction, done, missed, known, shell_set, workdir_set)

    def _done(self, instruction: Instruction, env: Watched, escape: str) -> Instruction:
        if not isinstance(instruction, Arg):
            return expanded(instruction, env, escape=escape)
        for written in instruction.args:
            value = self.given.get(written.name)
            if value is None and written.default is not None:
                value = expanded_arg(written, env, escape=escape).default
            elif value is None:
                value = self.scope.get(written.name)
            if value is not None:
                # The defaults after it on the line see it.
                self.env[written.name] = value
            self.declared.add(written.name)
        return instruction

    def _follow(self, instruction: Instruction, done: Instruction) -> None:
        if isinstance(done, Env):
            self.env.update((pair.key, pair.value) for pair in done.pairs)
        self.shell_set = self.shell_set or isinstance(instruction, Shell)
        self.workdir_set = self.workdir_set or isinstance(instruction, Workdir)
