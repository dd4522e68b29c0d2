"""The two forms of a command and how the history shows them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from minidock.dockerfile.instructions import SHELL_FORM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.dockerfile.instructions import Cmd, Entrypoint


def vector(instruction: Cmd | Entrypoint, shell: Sequence[str]) -> tuple[str, ...]:
    """What the configuration stores: the exec form as it is, the shell form wrapped in ``shell``."""
    return (*shell, instruction.text) if instruction.form == SHELL_FORM else instruction.args


def quoted(args: Sequence[str]) -> str:
    """``["a" "b"]``: how docker's history writes a vector."""
    return "[" + " ".join(json.dumps(arg, ensure_ascii=False) for arg in args) + "]"
