"""Deletions and opaque directories: how a layer's tar names them, and how overlayfs stores them.

Sources: OCI image-spec layer.md, "Whiteouts"; Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
directories". AUFS's own ``.wh..wh.*`` names come from docker's early layers.
"""

from __future__ import annotations

from minidock.drivers.tar_format import shorten
from minidock.errors import ArchiveError
from minidock.kernel.files import get_xattr, set_xattr

PREFIX = ".wh."
OPAQUE = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
_RESERVED = ".wh..wh."


def is_marker(name: str) -> bool:
    """True for a path that a layer reserves: some component begins with ``.wh.``."""
    return name.startswith(PREFIX) or f"/{PREFIX}" in name


def deleted_name(name: str) -> str | None:
    """The path that a marker other than ``.wh..wh..opq`` deletes; None for AUFS's own files, which mean nothing here.

    Raises ArchiveError for a marker that deletes no name, or that is used as a directory.
    """
    parent, slash, base = name.rpartition("/")
    if name.startswith(_RESERVED):
        return None
    victim = base.removeprefix(PREFIX)
    if victim in {"", ".", ".."} or victim == base or is_marker(parent):
        raise ArchiveError(f"the layer holds the meaningless whiteout {shorten(name)}")
    if base.startswith(_RESERVED):
        return None
    return f"{parent}{slash}{victim}"


def is_opaque(file: str | int) -> bool:
    """Whether overlayfs hides what lies below the directory, a descriptor or path."""
    return get_xattr(file, OPAQUE_XATTR) == b"y"


def set_opaque(file: str | int) -> None:
    """Make overlayfs hide what lies below the directory. Raises OSError."""
    set_xattr(file, OPAQUE_XATTR, b"y")
