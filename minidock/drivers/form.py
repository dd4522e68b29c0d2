"""The forms of a layer."""

from __future__ import annotations

from typing import NamedTuple

TARBALL = "tarball"
TREE = "tree"


class Form(NamedTuple):
    """How layers are kept: TARBALL, mounted straight from it, or TREE, unpacked; and in one phrase why."""

    name: str
    why: str
