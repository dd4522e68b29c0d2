"""Sources of ``COPY --parents``: what they name is selected with the directories on the way to it.

A source is cut at its first ``/./``, the pivot. What stands before it is a source as any other, links followed; what
stands after it (all of it, without a pivot) is a pattern of paths below, which are kept as they are: links too, through
which no path passes. It may hold ``**`` for any depth; a directory that matches is taken with all that is in it.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from minidock.build.choice import LEFT_OUT, PASSED, TAKEN
from minidock.build.putting import why_missing
from minidock.build.selection import Selection, join, select_below
from minidock.build.tree import SourceTree, is_pattern, named_paths, open_real, real_path
from minidock.dockerfile.glob import compile_glob, has_meta, ignore_regex
from minidock.errors import DockerfileError, MinidockError

if TYPE_CHECKING:
    from minidock.dockerfile.ignore import IgnoreRules

_PIVOT = "/./"
_ANY_DEPTH = "**"


class ParentsSource:
    """A source, read; it is a ``choice.Choice`` below its pivot. ``text`` is the whole, ``above`` what stands before
    the pivot, ``names`` are the components after it."""

    __slots__ = ("_regex", "_wanted", "above", "names", "text")

    def __init__(self, text: str) -> None:
        """Raises DockerfileError, without a place, for a pattern that is not well-formed, and for ``..`` in what is
        kept."""
        above, pivot, below = text.partition(_PIVOT)
        self.text = text
        self.above = above if pivot else ""
        self.names = tuple(name for name in (below if pivot else text).split("/") if name not in ("", "."))
        if ".." in self.names:
            raise DockerfileError(
                f"COPY --parents cannot keep the '..' of {text!r}",
                hint="write the path without it; what stands before a pivot, as in ../a/./b, is not kept",
            )
        self._regex = re.compile(ignore_regex("/".join(self.names)), re.DOTALL)
        # Up to the first that spans any depth, a component is that of its own level.
        self._wanted: list[str | re.Pattern[str]] = []
        for name in self.names:
            if _ANY_DEPTH in name:
                break
            self._wanted.append(compile_glob(name) if has_meta(name) else name)

    @property
    def is_pattern(self) -> bool:
        """Whether it may match nothing."""
        return is_pattern(self.above) or is_pattern("/".join(self.names))

    def only(self, directory: str) -> str:
        level = directory.count("/") + 1 if directory else 0
        wanted = self._wanted[level] if level < len(self._wanted) else ""
        return wanted if isinstance(wanted, str) else ""

    def verdict(self, path: str, *, is_directory: bool) -> int:
        if not self.names or self._regex.match(path):
            return TAKEN
        if not is_directory:
            return LEFT_OUT
        for wanted, name in zip(self._wanted, path.split("/"), strict=False):
            if not (wanted == name if isinstance(wanted, str) else wanted.match(name)):
                return LEFT_OUT
        return PASSED


def selections_with_parents(tree: SourceTree, source: ParentsSource, excluded: IgnoreRules | None) -> list[Selection]:
    """What one source selects, below each directory that its pivot names, without what ``excluded`` leaves out (paths
    below the pivot). Raises MinidockError if it is no pattern and nothing is there, OSError."""
    found: list[Selection] = []
    for path in named_paths(tree, source.above):
        try:
            real = real_path(tree.fd, path)
            selection = select_below(tree, real, choice=source, excluded=excluded, name=source.text)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not selection.empty:
            found.append(selection)
    if not found and not source.is_pattern and (excluded is None or not selections_with_parents(tree, source, None)):
        hint = _why_missing(tree, source)
        raise MinidockError(f"{source.text!r} is not found in {tree.name}", hint=hint)
    return found


def _why_missing(tree: SourceTree, source: ParentsSource) -> str:
    try:
        path = real_path(tree.fd, source.above)
        for number, name in enumerate(source.names[:-1], 1):
            path = join(path, name)
            if _is_link(tree, path):
                link = "/".join([*filter(None, [source.above.rstrip("/")]), *source.names[:number]])
                return f"{link} is a link, and --parents keeps paths as they are: write {link}/./ to follow it"
    except OSError:
        pass
    return why_missing(tree, source.text)


def _is_link(tree: SourceTree, path: str) -> bool:
    fd = open_real(tree.fd, path)
    try:
        return stat.S_ISLNK(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
