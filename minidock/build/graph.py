"""The graph of stages: what each stands on and copies from, and which of them a target needs.

It is data about the text alone, so that stages without a path between them may run side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minidock.dockerfile.fields import expanded_from
from minidock.dockerfile.instructions import Copy, Run
from minidock.dockerfile.suggest import did_you_mean
from minidock.errors import DockerfileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from minidock.dockerfile.instructions import Instruction, Stage
    from minidock.dockerfile.parser import Dockerfile

SCRATCH = "scratch"


class StageNode(NamedTuple):
    """One stage. ``reference`` is what FROM names once expanded; ``base`` the number of the stage that this is, or -1
    for an image and for ``scratch``; ``needs`` the numbers of all stages that it stands on or copies from."""

    position: int
    name: str
    reference: str
    base: int
    needs: tuple[int, ...]
    platform: str
    stage: Stage


def build_graph(dockerfile: Dockerfile, scope: Mapping[str, str]) -> tuple[StageNode, ...]:
    """The nodes of all stages. ``scope`` are the arguments that FROM sees.

    Raises DockerfileError with its place for a base that expands to nothing and for a stage that is used before it is
    defined.
    """
    nodes: list[StageNode] = []
    for stage in dockerfile.stages:
        try:
            origin = expanded_from(stage.origin, scope, escape=dockerfile.escape)
        except DockerfileError as error:
            raise dockerfile.source.locate(error, stage.location) from None
        base = _by_name(dockerfile.stages[: stage.position], origin.base)
        sources = copied_from(dockerfile, stage.position, stage.instructions)
        needs = tuple(sorted({*sources, *((base,) if base >= 0 else ())}))
        nodes.append(StageNode(stage.position, stage.name, origin.base, base, needs, origin.platform, stage))
    return tuple(nodes)


def copied_from(dockerfile: Dockerfile, index: int, instructions: Iterable[Instruction]) -> set[int]:
    """The stages that instructions of the stage ``index`` copy from or mount. Raises DockerfileError as ``stage_of``
    does."""
    found = set()
    for instruction in instructions:
        for name in _named_sources(instruction):
            try:
                number = stage_of(dockerfile, index, name)
            except DockerfileError as error:
                raise dockerfile.source.locate(error, instruction.location) from None
            if number >= 0:
                found.add(number)
    return found


def _named_sources(instruction: Instruction) -> Iterator[str]:
    """What an instruction names by ``from``."""
    if isinstance(instruction, Copy) and instruction.from_:
        yield instruction.from_
    if isinstance(instruction, Run) and instruction.mounts:
        from minidock.dockerfile.run_mounts import source_name

        yield from filter(None, map(source_name, instruction.mounts))


def stage_of(dockerfile: Dockerfile, index: int, name: str) -> int:
    """The number of the earlier stage that ``--from=name`` means in the stage ``index``; -1 if it means an image.

    Raises DockerfileError, without a place, for a stage that is not defined yet.
    """
    earlier = _by_name(dockerfile.stages[:index], name)
    if earlier >= 0:
        return earlier
    if name.isdecimal():
        if int(name[:9]) >= index:
            raise DockerfileError(f"--from={name}: there is no stage of that number before this one")
        return int(name)
    if _by_name(dockerfile.stages[index:], name) >= 0:
        raise DockerfileError(f"--from={name}: that stage is not defined yet", hint="only earlier stages can be used")
    return -1


def find_target(dockerfile: Dockerfile, target: str) -> int:
    """The number of the stage that ``--target`` names, the last for an empty text. Raises DockerfileError."""
    if not target:
        return len(dockerfile.stages) - 1
    number = _by_name(dockerfile.stages, target)
    if number < 0 and target.isdecimal() and int(target[:9]) < len(dockerfile.stages):
        number = int(target)
    if number < 0:
        names = [stage.name for stage in dockerfile.stages if stage.name]
        hint = did_you_mean(target, names) or (f"the stages are {', '.join(names)}" if names else "no stage has a name")
        raise DockerfileError(f"there is no stage {target!r} to build", hint=hint)
    return number


def stages_named(dockerfile: Dockerfile, names: Iterable[str]) -> tuple[frozenset[int], list[str]]:
    """The numbers of the stages that have one of the names or numbers, and a sentence about each name that none has."""
    found: set[int] = set()
    unknown = []
    for name in names:
        numbers = {stage.position for stage in dockerfile.stages if stage.name and stage.name == name.lower()}
        if not numbers and name.isdecimal() and int(name[:9]) < len(dockerfile.stages):
            numbers = {int(name[:9])}
        if not numbers:
            hint = did_you_mean(name, [stage.name for stage in dockerfile.stages if stage.name])
            unknown.append(f"there is no stage {name!r}{f' ({hint})' if hint else ''}")
        found |= numbers
    return frozenset(found), unknown


def reachable(target: int, needs: Callable[[int], Iterable[int]]) -> list[int]:
    """The stages that ``target`` needs, itself included, each after all that it needs. A stage needs earlier ones only,
    so that the order of the file is such an order."""
    found: set[int] = set()
    pending = [target]
    while pending:
        index = pending.pop()
        if index not in found:
            found.add(index)
            pending.extend(needs(index))
    return sorted(found)


def _by_name(stages: Sequence[Stage], name: str) -> int:
    """The last stage of that name (names are lower-case and may be given twice), or -1."""
    return next((stage.position for stage in reversed(stages) if stage.name and stage.name == name.lower()), -1)
