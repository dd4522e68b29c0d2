"""``--on-error``: what becomes of a build's step that fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from minidock.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.errors import BuildError

KEEP, DISCARD, SHELL = "keep", "discard", "shell"


def take_on_error(options: dict[str, Any]) -> tuple[str, Callable[[BuildError], None] | None]:
    """What was asked for, and what is called before a shell is opened, None for no shell; both are taken out of the
    options. Raises UsageError."""
    what = options.pop("on_error", "") or KEEP
    before_shell = options.pop("before_shell", None) or (lambda _: None)
    if what not in (KEEP, DISCARD, SHELL):
        raise UsageError(f"there is no --on-error={what}", hint="it is keep, discard or shell")
    if what != SHELL:
        return what, None
    require_terminal()
    return what, before_shell


def require_terminal() -> None:
    """Raise UsageError where descriptors 0 and 2 are no terminal, which a shell is joined to."""
    if not (os.isatty(0) and os.isatty(2)):
        raise UsageError(
            "--on-error=shell needs a terminal on standard input and standard error",
            hint="leave it out: what a failed step left is kept, and `minidock run -it --rm FAILED` looks into it",
        )
