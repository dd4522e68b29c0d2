"""ARG: variables for the steps after it, not for the image; only this executor sees its instruction unexpanded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.dockerfile.fields import expanded_arg

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Arg


def apply(instruction: Arg, stage: StageState) -> None:
    """Give each name its value: --build-arg, the default, the global one, in this order."""
    shown: list[str] = []
    for written in instruction.args:
        # Each default sees the names before it on the same line.
        argument = expanded_arg(written, stage.env, escape=stage.escape)
        value = stage.arguments.value(argument.name, argument.default)
        stage.declare(argument.name, value)
        shown.append(argument.name if value is None else f"{argument.name}={value}")
    stage.add_line("ARG " + " ".join(shown), instruction.location)
