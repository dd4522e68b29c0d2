"""COPY straight into a layer's tarball: one pass that reads, hashes and writes, without a copy in between.

It serves where the layer can be foreseen from the files and from what lies beneath (see ``placement``); anything else
is copied into a writable layer, with the same result byte for byte.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from minidock.build.placement import Directory, Part, Placement, Text, UnforeseenError
from minidock.build.selection import Entry, check_unchanged, open_unchanged
from minidock.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from minidock.build.selection import Selection
    from minidock.build.work import LayerWriter, StepWork
    from minidock.build.writer import Look
    from minidock.dockerfile.instructions import Heredoc

_MAX_OPEN = 8
_NO_XATTRS: Mapping[str, bytes] = {}


def compose(
    work: StepWork,
    destination: str,
    find_look: Callable[[int], Look],
    *,
    selections: Iterable[Selection],
    heredocs: Iterable[Heredoc],
) -> bool:
    """Write what the sources put to ``destination`` as the step's layer; ``find_look`` gives the owner and mode that
    are asked for, from the tree beneath. False where that cannot be foreseen: nothing is written then.

    Raises MinidockError, or OSError.
    """
    try:
        with work.compose() as writer:
            if writer is None:
                return False
            look = find_look(writer.view)
            placement = Placement(writer.view, destination, look, work.dating)
            for selection in selections:
                placement.add(selection)
            for heredoc in heredocs:
                placement.add_text(heredoc.name, heredoc.body.encode("utf-8", "surrogateescape"))
            if placement.root is not None:
                _Composition(writer, look).write(placement.root)
    except UnforeseenError:
        return False
    return True


class _Composition:
    """Writes a placement to a layer, in the order of its tar."""

    __slots__ = ("_links", "_look", "_mode", "_sources", "_symbolic", "_writer")

    def __init__(self, writer: LayerWriter, look: Look) -> None:
        self._writer = writer
        self._look = look
        self._mode = stat.S_IFREG | look.mode if isinstance(look.mode, int) else None
        self._symbolic = look.mode is not None and self._mode is None
        self._links: dict[tuple[int, int, int], str] = {}
        self._sources = _Sources()

    def write(self, root: Directory) -> None:
        with self._sources:
            self._add_directory("", root)
            pending = [("", _sorted(root))]
            while pending:
                above, items = pending[-1]
                for name, child in items:
                    path = above + name
                    if isinstance(child, Directory):
                        self._add_directory(path, child)
                        pending.append((f"{path}/", _sorted(child)))
                        break
                    if isinstance(child, Text):
                        self._add_text(path, child)
                    else:
                        self._add_entry(path, *child)
                else:
                    pending.pop()

    def _add_directory(self, path: str, made: Directory) -> None:
        mode = stat.S_IFDIR | made.mode
        self._writer.add(path, mode=mode, uid=made.uid, gid=made.gid, mtime=made.mtime, xattrs=made.xattrs)

    def _add_text(self, path: str, text: Text) -> None:
        mode, size = stat.S_IFREG | text.mode, len(text.data)
        self._writer.add_file(
            path,
            mode=mode,
            uid=text.uid,
            gid=text.gid,
            mtime=text.mtime,
            size=size,
            xattrs=_NO_XATTRS,
            source=text.data,
        )

    def _add_entry(self, path: str, part: Part, entry: Entry) -> None:
        status, selection = entry.status, part.selection
        mode, inner = status.st_mode, part.prefix + entry.name
        uid, gid = part.owner or (status.st_uid, status.st_gid)
        xattrs = selection.xattrs.get(inner, _NO_XATTRS)
        if stat.S_ISREG(mode):
            self._add_file(path, part, entry, uid=uid, gid=gid, xattrs=xattrs)
            return
        kind = stat.S_IFMT(mode)
        self._writer.add(
            path,
            mode=kind | (0o777 if kind == stat.S_IFLNK else self._look.mode_of(status)),
            uid=uid,
            gid=gid,
            mtime=self._look.seconds(status),
            target=entry.link,
            rdev=status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
            xattrs=xattrs,
        )

    def _add_file(
        self, path: str, part: Part, entry: Entry, *, uid: int, gid: int, xattrs: Mapping[str, bytes]
    ) -> None:
        status, writer = entry.status, self._writer
        mode = status.st_mode if self._mode is None else self._mode
        if self._symbolic:
            mode = stat.S_IFREG | self._look.mode_of(status)
        mtime = self._look.seconds(status)
        if status.st_nlink > 1:
            first = self._links.setdefault((id(part.selection), status.st_dev, status.st_ino), path)
            if first is not path:
                writer.add(path, mode=mode, uid=uid, gid=gid, mtime=mtime, link_to=first)
                return
        size = status.st_size
        held = part.selection.held.pop(part.prefix + entry.name, None)
        if held is not None:
            writer.add_file(path, mode=mode, uid=uid, gid=gid, mtime=mtime, size=size, xattrs=xattrs, source=held)
            return
        fd = open_unchanged(entry, self._sources.open(part))
        try:
            writer.add_file(path, mode=mode, uid=uid, gid=gid, mtime=mtime, size=size, xattrs=xattrs, source=fd)
            check_unchanged(fd, entry)
        except ArchiveError:
            check_unchanged(fd, entry)
            raise
        finally:
            os.close(fd)


class _Sources:
    """The directories that files are read from; the last few stay open until the context ends."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[int, int] = {}

    def __enter__(self) -> _Sources:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def open(self, part: Part) -> int:
        """A descriptor of the part's directory. Raises OSError."""
        fd = self._open.get(id(part))
        if fd is None:
            fd = part.selection.open_group(part.group)
            if len(self._open) == _MAX_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[id(part)] = fd
        return fd


def _sorted(directory: Directory) -> Iterator[tuple[str, Directory | Text | tuple[Part, Entry]]]:
    """A directory's children in the order of a tar: by the bytes of their names."""
    children = directory.children
    names = sorted(children)
    if not "".join(names).isascii():
        names.sort(key=os.fsencode)
    return zip(names, map(children.__getitem__, names), strict=True)
