"""Unpacking a tar stream into a directory that nobody else can reach, or, for ADD, into a container's root.

Every file is made by a name in a directory descriptor; what leads to that directory never leaves the tree. Existing
entries are replaced, never written through. Directories get owner, mode and times last.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minidock.drivers import trees, xattrs
from minidock.drivers.beneath import Attributes, join
from minidock.drivers.parents import Parents
from minidock.drivers.tar_format import BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, LINK, REGULAR, SYMLINK, Entry, shorten
from minidock.drivers.whiteouts import OPAQUE, deleted_name, is_marker, set_opaque
from minidock.errors import ArchiveError
from minidock.kernel.files import whiteout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minidock.drivers.tar_reader import TarReader

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ANY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND = 1_000_000_000


class Unpacked:
    """What a layer's tar said besides its tree: paths ``deleted`` from the layers beneath and directories that hide
    what is beneath (``opaque``; "" is the root). ``self_contained`` is true when the tree is the same above any layers.
    """

    __slots__ = ("deleted", "opaque", "self_contained")

    def __init__(self, parents: Parents) -> None:
        self.deleted = parents.beneath.deleted
        self.opaque = parents.beneath.opaque
        self.self_contained = parents.beneath.self_contained


def unpack_layer(reader: TarReader, tree_fd: int, below: Callable[[], int] | None) -> Unpacked:
    """Unpack a layer into the empty directory ``tree_fd``; deletions are returned, not made.

    ``below`` gives a directory with the merged view of the layers beneath, which stays the caller's; None when there
    are none. Raises ArchiveError, OSError.
    """
    unpacker = _Unpacker(reader, tree_fd, below, prefix=None)
    try:
        unpacker.run()
        return Unpacked(unpacker.parents)
    finally:
        unpacker.parents.close()


def extract(reader: TarReader, root_fd: int, directory: str, *, mtime: int | None = None) -> None:
    """Unpack an archive into ``directory`` (relative, perhaps "") of a root that may be a running container's.

    Deletion marks mean nothing here, existing directories stay and take the archive's attributes, hard links point
    inside ``directory``. Directories that the archive needs but does not hold get ``mtime``, or keep the time at which
    they were made. Raises ArchiveError, OSError.
    """
    unpacker = _Unpacker(reader, root_fd, None, prefix=directory, mtime=mtime)
    try:
        unpacker.run()
    finally:
        unpacker.parents.close()


def write_marks(unpacked: Unpacked, tree_fd: int) -> None:
    """Put a layer's deletions into its tree as overlayfs wants them. Raises OSError."""
    for path in unpacked.deleted:
        directory, _, name = path.rpartition("/")
        fd = trees.try_open_directory(tree_fd, directory)
        if fd < 0:
            continue
        with _keeping_times(fd):
            if trees.status_of(name, fd) is None:
                whiteout(fd, name)
    for path in unpacked.opaque:
        fd = trees.try_open_directory(tree_fd, path)
        if fd >= 0:
            with _keeping_times(fd):
                set_opaque(fd)


@contextmanager
def _keeping_times(fd: int) -> Iterator[None]:
    """Change a directory and give its times back; the descriptor is closed."""
    try:
        status = os.fstat(fd)
        yield
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(fd)


class _Unpacker:
    __slots__ = ("_prefix", "_reader", "_tree_fd", "parents")

    def __init__(
        self,
        reader: TarReader,
        tree_fd: int,
        below: Callable[[], int] | None,
        *,
        prefix: str | None,
        mtime: int | None = None,
    ) -> None:
        self._reader = reader
        self._tree_fd = tree_fd
        self._prefix = prefix
        default = Attributes() if prefix is None else Attributes(mtime=mtime)
        self.parents = Parents(tree_fd, below, default)

    def run(self) -> None:
        for entry in self._reader:
            self._add(self._placed(entry) if self._prefix else entry)
        if self._prefix is None:
            # A root that the tar does not hold is as it is beneath.
            if "" not in self.parents.directories:
                self.parents.directories[""] = self.parents.beneath.root()
            self.parents.beneath.settle(self._mode_in_root)
        for path, attributes in self.parents.directories.items():
            fd = trees.try_open_directory(self._tree_fd, path)
            if fd >= 0:
                try:
                    _give(fd, attributes, path)
                finally:
                    os.close(fd)

    def _mode_in_root(self, name: str) -> int | None:
        status = trees.status_of(name, self._tree_fd)
        return None if status is None else status.st_mode

    def _placed(self, entry: Entry) -> Entry:
        """The entry with its name and hard-link target below the directory that ADD unpacks to."""
        prefix = self._prefix or ""
        link = join(prefix, entry.linkname) if entry.type == LINK else entry.linkname
        return entry._replace(name=join(prefix, entry.name) if entry.name else "", linkname=link)

    def _add(self, entry: Entry) -> None:
        name = entry.name
        if self._prefix is None and is_marker(name):
            self._mark(name)
        elif not name:
            if self._prefix is None:
                self.parents.directories[""] = _attributes(entry)
        else:
            directory, _, base = name.rpartition("/")
            fd, canonical = self.parents.enter(directory)
            path = join(canonical, base)
            try:
                self._make(entry, fd, base, path)
            except FileExistsError:
                self._clear(fd, base, path, entry)
                self._make(entry, fd, base, path)

    def _mark(self, name: str) -> None:
        parents, beneath = self.parents, self.parents.beneath
        directory, _, base = name.rpartition("/")
        if base == OPAQUE and not is_marker(directory):
            _, canonical = parents.enter(directory)
            beneath.opaque.add(canonical)
            return
        victim = deleted_name(name)
        if victim is None:
            return
        directory, _, base = victim.rpartition("/")
        fd, canonical = parents.enter(directory)
        status = trees.status_of(base, fd)
        if status is None:
            beneath.deleted.add(join(canonical, base))
        elif stat.S_ISDIR(status.st_mode):
            beneath.opaque.add(join(canonical, base))

    def _clear(self, fd: int, base: str, path: str, entry: Entry) -> None:
        """Make room for an entry; a directory stays for a directory's entry."""
        status = trees.status_of(base, fd)
        if status is not None and stat.S_ISDIR(status.st_mode) and entry.type != DIRECTORY:
            self.parents.replaced(path)
            trees.remove(base, fd)
        elif status is not None and not stat.S_ISDIR(status.st_mode):
            self.parents.replaced(path)
            os.unlink(base, dir_fd=fd)
            if entry.type == DIRECTORY and self._prefix is None:
                self.parents.beneath.opaque.add(path)

    def _make(self, entry: Entry, fd: int, base: str, path: str) -> None:
        kind = entry.type
        if kind == REGULAR:
            self._make_file(entry, fd, base, path)
        elif kind == DIRECTORY:
            self._make_directory(entry, fd, base, path)
        elif kind == LINK:
            self._make_link(entry, fd, base, path)
        else:
            self._make_other(entry, fd, base, path)
        if kind != DIRECTORY and self.parents.beneath.deleted:
            self.parents.beneath.deleted.discard(path)

    def _make_file(self, entry: Entry, dir_fd: int, base: str, path: str) -> None:
        fd = os.open(base, _CREATE, 0o600, dir_fd=dir_fd)
        try:
            self._reader.copy_to(fd, entry)
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                xattrs.write(fd, entry.xattrs, path)
            os.utime(fd, ns=(entry.mtime * _SECOND, entry.mtime * _SECOND))
        finally:
            os.close(fd)

    def _make_directory(self, entry: Entry, fd: int, base: str, path: str) -> None:
        status = trees.status_of(base, fd)
        if status is not None and stat.S_ISDIR(status.st_mode):
            self.parents.directories[path] = _attributes(entry)
        else:
            self.parents.make(base, fd, path, _attributes(entry))

    def _make_link(self, entry: Entry, fd: int, base: str, path: str) -> None:
        directory, _, target = entry.linkname.rpartition("/")
        target_fd, canonical = self.parents.enter(directory)
        if join(canonical, target) == path:
            raise ArchiveError(f"the tar stream's hard link {shorten(path)} points to itself")
        status = trees.status_of(target, target_fd)
        if status is None:
            status = self._copy_up(target_fd, canonical, target)
        if status is None or stat.S_ISDIR(status.st_mode):
            what = "is missing" if status is None else "is a directory"
            raise ArchiveError(
                f"the target {shorten(entry.linkname)} of the tar stream's hard link {shorten(path)} {what}"
            )
        os.link(target, base, src_dir_fd=target_fd, dst_dir_fd=fd, follow_symlinks=False)

    def _copy_up(self, fd: int, directory: str, name: str) -> os.stat_result | None:
        """Bring a hard link's target from the layers beneath into this one."""
        beneath = self.parents.beneath
        below = beneath.status(directory, name)
        if below is None:
            return None
        beneath.self_contained = False
        status, below_fd = below
        try:
            if not stat.S_ISDIR(status.st_mode):
                trees.copy_entry(below_fd, fd, name, status)
        finally:
            os.close(below_fd)
        return status

    def _make_other(self, entry: Entry, dir_fd: int, base: str, path: str) -> None:
        if entry.type == SYMLINK:
            os.symlink(entry.linkname, base, dir_fd=dir_fd)
        else:
            self._make_special(entry, dir_fd, base, path)
        os.chown(base, entry.uid, entry.gid, dir_fd=dir_fd, follow_symlinks=False)
        if entry.type != SYMLINK:
            fd = os.open(base, _ANY, dir_fd=dir_fd)
            try:
                os.chmod(f"/proc/self/fd/{fd}", entry.mode)
            finally:
                os.close(fd)
        if entry.xattrs:
            xattrs.write(f"/proc/self/fd/{dir_fd}/{base}", entry.xattrs, path)
        times = (entry.mtime * _SECOND, entry.mtime * _SECOND)
        os.utime(base, ns=times, dir_fd=dir_fd, follow_symlinks=False)

    @staticmethod
    def _make_special(entry: Entry, dir_fd: int, base: str, path: str) -> None:
        device = os.makedev(entry.major, entry.minor)
        kind = {CHAR_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}.get(entry.type, stat.S_IFIFO)
        if kind == stat.S_IFCHR and device == 0:
            raise ArchiveError(f"the tar stream holds the character device 0:0 {shorten(path)}, which marks a deletion")
        os.mknod(base, kind | 0o600, device if kind != stat.S_IFIFO else 0, dir_fd=dir_fd)


def _attributes(entry: Entry) -> Attributes:
    return Attributes(entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs)


def _give(fd: int, attributes: Attributes, path: str) -> None:
    os.fchown(fd, attributes.uid, attributes.gid)
    os.fchmod(fd, attributes.mode)
    if attributes.xattrs:
        xattrs.write(fd, attributes.xattrs, path or "/")
    if attributes.mtime is not None:
        os.utime(fd, ns=(attributes.mtime * _SECOND, attributes.mtime * _SECOND))
