"""Names that people give: containers and volumes."""

from __future__ import annotations

import re

from minidock.errors import InvalidReferenceError

_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"
_MAX = 255


def check_name(name: str, *, kind: str) -> str:
    """Return ``name`` if it may name a ``kind`` ("container", "volume"), else raise InvalidReferenceError.

    The grammar is docker's: at least two characters, the first a letter or digit.
    """
    if not re.fullmatch(_NAME, name) or len(name) > _MAX:
        raise InvalidReferenceError(
            f"invalid {kind} name {name!r}",
            hint=f"use 2 to {_MAX} of letters, digits, '_', '.' and '-', the first a letter or digit",
        )
    return name
