"""Trees that files are copied from, and paths inside them.

A tree is a directory descriptor: the build context, or the merged root of a stage or an image. Paths are walked
component by component on that descriptor, so that no link, absolute or with ``..``, leads out of it.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from minidock.dockerfile.glob import has_meta, match
from minidock.kernel.resolve import open_beneath

if TYPE_CHECKING:
    from minidock.dockerfile.ignore import IgnoreRules

_MAX_LINKS = 255
_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SourceTree:
    """A tree to copy from: ``fd`` is its root, borrowed from the opener.

    ``rules`` are the ignore rules of a context, or None; ``keep_owner`` says whether files keep their owner (stages and
    images) or become root's (the context); ``name`` is what a message calls it.
    """

    __slots__ = ("fd", "keep_owner", "name", "rules")

    def __init__(self, fd: int, *, name: str, keep_owner: bool, rules: IgnoreRules | None = None) -> None:
        self.fd = fd
        self.name = name
        self.keep_owner = keep_owner
        self.rules = rules

    def ignored(self, path: str) -> bool:
        """Whether the ignore rules leave out ``path``; never the root."""
        return bool(self.rules and path and self.rules.matches(path))


def open_real(root_fd: int, path: str, flags: int = _FLAGS) -> int:
    """Open a path that has no links in it ("" is the root itself); a link that got there meanwhile is ELOOP."""
    return open_beneath(root_fd, path or ".", flags, symlinks=False)


def real_path(root_fd: int, path: str, *, missing_ok: bool = False) -> str:
    """The path of what ``path`` names once every link is followed inside ``root_fd``: relative, without links or dots.

    The root itself is the empty text. With ``missing_ok`` what does not exist stays as it is written. Raises
    FileNotFoundError, NotADirectoryError, or OSError(ELOOP) after 255 links.
    """
    pending = _components(path)
    done: list[str] = []
    links = 0
    while pending:
        name = pending.pop()
        if name == "..":
            del done[-1:]
            continue
        done.append(name)
        target = _link_target(root_fd, "/".join(done), inner=bool(pending), missing_ok=missing_ok)
        if target is None:
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(40, os.strerror(40), path)
        if target.startswith("/"):
            done.clear()
        else:
            done.pop()
        pending.extend(_components(target))
    return "/".join(done)


def _components(path: str) -> list[str]:
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _link_target(root_fd: int, path: str, *, inner: bool, missing_ok: bool) -> str | None:
    try:
        fd = open_real(root_fd, path)
    except FileNotFoundError:
        if missing_ok:
            return None
        raise
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            return os.readlink("", dir_fd=fd)
        if inner and not stat.S_ISDIR(mode):
            raise NotADirectoryError(20, os.strerror(20), path)
        return None
    finally:
        os.close(fd)


def is_pattern(source: str) -> bool:
    """Whether a source is a pattern, which may match nothing."""
    return any(has_meta(name) for name in _clamped(source))


def named_paths(tree: SourceTree, source: str) -> list[str]:
    """The paths that a source names: itself, or for a pattern whatever matches, sorted; perhaps nothing.

    Leading ``/`` and ``..`` are clamped inside the tree, a trailing slash says nothing. Directories that a pattern
    passes through are not followed if they are links; the literal part before the first pattern is.
    """
    names = _clamped(source)
    first = next((i for i, name in enumerate(names) if has_meta(name)), len(names))
    if first == len(names):
        return ["/".join(names)]
    found = ["/".join(names[:first])]
    if found[0]:
        try:
            found = [real_path(tree.fd, found[0])]
        except (FileNotFoundError, NotADirectoryError):
            return []
    for name in names[first:]:
        found = [child for parent in found for child in _matching(tree, parent, name)]
    return found


def _clamped(source: str) -> list[str]:
    names: list[str] = []
    for name in source.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    return names


def _matching(tree: SourceTree, parent: str, pattern: str) -> list[str]:
    try:
        fd = open_real(tree.fd, parent, DIRECTORY_FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        names = sorted(os.listdir(fd))
    finally:
        os.close(fd)
    prefix = f"{parent}/" if parent else ""
    return [prefix + name for name in names if match(pattern, name)]
