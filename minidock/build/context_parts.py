"""Files of the build context set aside, for RUN to mount.

What a bind mount of the context shows is what COPY would copy: without what the ignore rules leave out, owned by root,
and as it was when its digest was taken, whatever happens to the context meanwhile. Where the storage driver can make a
layer of files without copying them first, it is such a layer, of which the cache knows; else they are copied.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from minidock.build.cache import Key, make_key
from minidock.build.selection import Entry, Group, Selection, content_digest, join, select
from minidock.build.tree import DIRECTORY_FLAGS, real_path
from minidock.build.writer import Look, Target, Writer
from minidock.errors import ArchiveError, MinidockError

if TYPE_CHECKING:
    from minidock.build.tree import SourceTree

_NAME = "part"


class LayerMaker(Protocol):
    """What makes a layer of files; ``work.StepWork`` has it."""

    def layer_of(self, selection: Selection, destination: str, key: Key) -> str | None: ...


class Copied(NamedTuple):
    """A copy: ``name`` in the directory ``path``."""

    path: str
    name: str


class ContextPart:
    """What lies at one path of a source tree: its digest, and one copy of it for all who only read."""

    __slots__ = ("_copied", "_layer", "_status", "digest", "selection")

    def __init__(self, tree: SourceTree, source: str) -> None:
        """Raises MinidockError if nothing is there, OSError."""
        self.selection, self._status = _select(tree, source)
        self.digest = content_digest(self.selection)
        self._copied: Copied | None = None
        self._layer: str | None = None

    @property
    def name(self) -> str:
        """What it is called in its layer."""
        return os.path.basename(self.selection.path) or _NAME

    def layer(self, work: LayerMaker) -> str | None:
        """The diff ID of a layer that holds it by its name; None where there can be none. Raises MinidockError if the
        source has changed since, OSError."""
        if self._layer is None:
            selection, destination = self.selection, "/"
            if not selection.path:
                destination = f"/{self.name}/"
            elif selection.is_directory:
                selection = _in_its_parent(selection, self._status, self.name)
            key = make_key((), instruction="CONTEXT", path=self.name, mode=self._status.st_mode, files=self.digest)
            # Names that a layer gives another meaning can still be copied.
            with suppress(ArchiveError):
                self._layer = work.layer_of(selection, destination, key)
        return self._layer

    def shared(self, directory: str) -> Copied:
        """The copy that nobody may write to, made in ``directory`` (which has to stay) when it is first asked for."""
        if self._copied is None:
            self._copied = self.copy(directory)
        return self._copied

    def copy(self, directory: str) -> Copied:
        """A copy of one's own below ``directory``. Raises MinidockError if the source has changed since, OSError."""
        path = f"{directory}/part-{os.urandom(8).hex()}"
        os.mkdir(path, 0o700)
        if not self.selection.is_directory:
            _write(self.selection, path, _NAME)
            return Copied(path, _NAME)
        os.mkdir(f"{path}/{_NAME}", 0o700)
        self.fill(f"{path}/{_NAME}")
        return Copied(path, _NAME)

    def fill(self, directory: str) -> None:
        """Copy into an empty directory, which gets the source's own mode, owner and times if that is one."""
        if not self.selection.is_directory:
            _write(self.selection, directory, self.selection.name)
            return
        _write(self.selection, directory, "")
        status = self._status
        uid, gid = Look().owner_of(status, self.selection.tree)
        os.chown(directory, uid, gid)
        os.chmod(directory, stat.S_IMODE(status.st_mode))
        os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))


def _in_its_parent(selection: Selection, status: os.stat_result, name: str) -> Selection:
    """A directory's contents as the directory with them, below its parent."""
    groups = [Group("", [Entry(name, status)])]
    groups += [Group(join(name, group.path), group.entries) for group in selection.groups]
    parent = os.path.dirname(selection.path)
    found = Selection(selection.tree, parent, selection.name, is_directory=True, groups=groups)
    found.xattrs = {join(name, path): values for path, values in selection.xattrs.items()}
    return found


def _select(tree: SourceTree, source: str) -> tuple[Selection, os.stat_result]:
    hint = ""
    try:
        path = real_path(tree.fd, source)
        selection = select(tree, path, os.path.basename(path))
        if selection is not None:
            return selection, os.stat(path or ".", dir_fd=tree.fd, follow_symlinks=False)
        hint = "it is there, but .dockerignore leaves it out"
    except (FileNotFoundError, NotADirectoryError):
        hint = "a source is relative to the build context, and links do not lead out of it" if tree.rules else ""
    raise MinidockError(f"{source!r} is not found in {tree.name}", hint=hint)


def _write(selection: Selection, directory: str, name: str) -> None:
    fd = os.open(directory, DIRECTORY_FLAGS)
    try:
        Writer(selection, Target(fd, name), Look()).write()
    finally:
        os.close(fd)
