"""Resource limits that a person asked for: they are met as they are, or nothing starts."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import ContainerStartError
from minidock.kernel import process as kp

if TYPE_CHECKING:
    from minidock.runtime.context import ChildContext

_NR_OPEN = "/proc/sys/fs/nr_open"


class RaiseLimits(NamedTuple):
    """Raise the hard limits that are lower than asked for, while the engine's capabilities are still held.

    ``limits`` are (name, soft, hard) with -1 for no limit; ``SetLimits`` brings them into force at the end. Raises
    ContainerStartError where a limit cannot be raised.
    """

    limits: tuple[tuple[str, int, int], ...]
    where: str = "child"
    why: str = "limits"

    def describe(self) -> str:
        texts = [f"{_short(name)}={_shown(soft)}:{_shown(hard)}" for name, soft, hard in self.limits]
        return f"ulimit {' '.join(texts)}"

    def execute(self, context: ChildContext) -> None:
        del context
        for name, _, hard in self.limits:
            raise_limit(name, hard)


def raise_limit(name: str, hard: int) -> None:
    """Raise the caller's hard limit of that name to ``hard`` where it is lower; -1 is no limit."""
    number = kp.limit_number(name)
    soft, ceiling = resource.getrlimit(number)
    if ceiling == resource.RLIM_INFINITY or 0 <= hard <= ceiling:
        return
    try:
        resource.setrlimit(number, (soft, hard))
    except (OSError, ValueError):
        most = _most_files() if name == "RLIMIT_NOFILE" else -1
        if 0 <= most < hard or (hard < 0 <= most):
            why = f"the kernel's fs.nr_open is {most}"
        else:
            why = f"the engine's own hard limit is {ceiling}, and without CAP_SYS_RESOURCE it cannot raise it"
        raise ContainerStartError(
            f"cannot set ulimit {_short(name)} to {_shown(hard)}: {why}",
            hint=f"use at most --ulimit {_short(name)}={ceiling}",
        ) from None


def _most_files() -> int:
    """The kernel's own bound of RLIMIT_NOFILE, which no capability raises; -1 where it cannot be read."""
    try:
        with open(_NR_OPEN, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return -1


def _short(name: str) -> str:
    return name.removeprefix("RLIMIT_").lower()


def _shown(value: int) -> str:
    return "unlimited" if value < 0 else str(value)
