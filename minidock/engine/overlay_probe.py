"""What the kernel's overlayfs really does with the options that minidock mounts with: found out on a scratch mount."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from minidock.kernel.files import list_xattrs
from minidock.kernel.overlay import overlay

if TYPE_CHECKING:
    from collections.abc import Collection


class Overlay(NamedTuple):
    """``native_diff``: the upper directory alone tells what changed. ``metacopy``: a change of mode copies no content.

    ``userxattr``: overlayfs keeps its marks in ``user.*``, as it does for mounts of a user namespace.
    """

    native_diff: bool
    metacopy: bool
    userxattr: bool


def probe_overlay(directory: str) -> Overlay:
    """Mount an overlay in the empty ``directory`` (detached: no other process sees it), change things, look at upper.

    A directory made again must be marked opaque and a rename of a lower one must be refused or leave no redirect
    (Documentation/filesystems/overlayfs.rst). Raises OSError when there is no overlayfs.
    """
    lower, upper, work = (f"{directory}/{name}" for name in ("lower", "upper", "work"))
    for path in (lower, upper, work, f"{lower}/again", f"{lower}/moved"):
        os.mkdir(path)
    for path in (f"{lower}/again/file", f"{lower}/touched"):
        with open(path, "w", encoding="ascii") as file:
            file.write("x")
    fd = overlay([lower], upper=upper, work=work)
    try:
        os.unlink("again/file", dir_fd=fd)
        os.rmdir("again", dir_fd=fd)
        os.mkdir("again", dir_fd=fd)
        os.chmod("touched", 0o600, dir_fd=fd)
        try:
            os.rename("moved", "renamed", src_dir_fd=fd, dst_dir_fd=fd)
        except OSError:
            redirected: Collection[str] = ()
        else:
            redirected = list_xattrs(f"{upper}/renamed")
    finally:
        os.close(fd)
    again, touched = list_xattrs(f"{upper}/again"), list_xattrs(f"{upper}/touched")
    return Overlay(
        native_diff=_marked(again, "opaque") and not _marked(redirected, "redirect"),
        metacopy=_marked(touched, "metacopy"),
        userxattr=any(name.startswith("user.overlay.") for name in (*again, *touched)),
    )


def supports_d_type(directory: str) -> bool:
    """Whether the file system tells an entry's type with its name (readdir(3), d_type), as overlayfs needs it."""
    path = f"{directory}/d_type"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    with os.scandir(directory) as entries:
        found = [entry for entry in entries if entry.name == "d_type"]
    os.unlink(path)
    # The type that came with the name is still known; asking the file itself finds nothing any more.
    return all(entry.is_file(follow_symlinks=False) for entry in found)


def _marked(xattrs: Collection[str], mark: str) -> bool:
    return f"trusted.overlay.{mark}" in xattrs or f"user.overlay.{mark}" in xattrs
