"""What comes of packing a layer."""

from __future__ import annotations

from typing import NamedTuple


class Sealed(NamedTuple):
    """A finished index: the bytes of its file, and whether it is the same above any layers."""

    data: bytes
    self_contained: bool


class Packed(NamedTuple):
    """A layer that was written as a tar: its digest, bytes and entries; ``empty`` when it differs in nothing;
    ``deletions`` are the names that it deletes from what is beneath.

    ``sealed`` is the index that mounts it from its tar, None where the driver has no use for it or the layer cannot be
    expressed so; ``problem`` then says in a phrase why.
    """

    diff_id: str
    size: int
    entries: int
    empty: bool
    deletions: int
    sealed: Sealed | None = None
    problem: str = ""
