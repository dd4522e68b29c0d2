"""The executor of an instruction: the module of this folder that bears its name.

Each has ``apply(instruction, stage)``, which changes the stage's state and adds a line of history.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

from minidock.errors import DockerfileError

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Instruction


class Executor(Protocol):
    """What each module of this folder is."""

    def apply(self, instruction: Any, stage: StageState, /) -> None: ...


def word_of(instruction: Instruction) -> str:
    """The instruction's word as the Dockerfile reference writes it: ``COPY``."""
    return type(instruction).__name__.upper()


def executor_of(instruction: Instruction) -> Executor:
    """The module that executes ``instruction``. Raises DockerfileError, without a place, if there is none."""
    name = f"{__package__}.{word_of(instruction).lower()}"
    try:
        return cast(Executor, importlib.import_module(name))
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise DockerfileError(f"{word_of(instruction)} is not executed by minidock yet") from None
