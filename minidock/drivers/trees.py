"""Trees as a whole: removal, copy, merging, size. All by directory descriptors; no symbolic link is ever followed."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minidock.drivers import xattrs
from minidock.kernel.files import copy_range
from minidock.kernel.resolve import open_beneath

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A directory of the data root's own as a descriptor, closed at the end. Raises OSError."""
    fd = os.open(path, OPEN_DIR)
    try:
        yield fd
    finally:
        os.close(fd)


def new_directory(parent: str, prefix: str) -> str:
    """The path of a new private directory in one of the data root's own. Raises OSError."""
    path = f"{parent}/{prefix}-{os.urandom(8).hex()}"
    os.mkdir(path, 0o700)
    return path


def link_file(directory: str, name: str, data: bytes) -> None:
    """Write a read-only file that appears whole or not at all: it has no name until it is finished (O_TMPFILE).

    Raises FileExistsError, OSError (EOPNOTSUPP where the file system has no such files).
    """
    fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o400)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        with opened(directory) as parent:
            # By dst_dir_fd alone os.link calls linkat(2), which follows the link in /proc to the file.
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=parent, follow_symlinks=True)
    finally:
        os.close(fd)


def open_directory(root_fd: int, path: str) -> int:
    """The directory ``path`` (relative, "" for the root itself) below ``root_fd``. Raises OSError."""
    return open_beneath(root_fd, path or ".", OPEN_DIR, symlinks=False)


def try_open_directory(root_fd: int, path: str) -> int:
    """As ``open_directory``, -1 where there is no directory of that name."""
    try:
        return open_directory(root_fd, path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return -1
        raise


def status_of(name: str, dir_fd: int) -> os.stat_result | None:
    """The status of an entry, itself and not what it points to; None where there is none."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def remove(name: str, dir_fd: int) -> None:
    """Remove an entry and everything below it; one that is gone already is fine.

    Directories are moved up to the top before they are emptied, so that any depth takes two descriptors. Raises
    OSError.
    """
    status = status_of(name, dir_fd)
    if status is None:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(name, dir_fd=dir_fd)
        return
    top = os.open(name, OPEN_DIR, dir_fd=dir_fd)
    try:
        clear(top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def clear(top: int) -> None:
    """Remove everything in the directory ``top``. Raises OSError."""
    pending = _empty(top)
    while pending:
        name = pending.pop()
        fd = os.open(name, OPEN_DIR, dir_fd=top)
        try:
            for child in _empty(fd):
                lifted = f".removed-{os.urandom(8).hex()}"
                os.rename(child, lifted, src_dir_fd=fd, dst_dir_fd=top)
                pending.append(lifted)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=top)


def _empty(fd: int) -> list[str]:
    """Remove all but directories; returns those."""
    directories = []
    with os.scandir(fd) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in listed:
        if is_directory:
            directories.append(name)
        else:
            os.unlink(name, dir_fd=fd)
    return directories


def copy(source_fd: int, target_fd: int) -> None:
    """Copy everything in one directory to another, empty one, and the directory's own attributes: hard links, holes,
    special files, owners, times and extended attributes with it. Raises OSError."""
    links: dict[tuple[int, int], tuple[str, str]] = {}
    for path, source, target in _both(source_fd, target_fd):
        for name, status in _listed(source):
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(name, 0o700, dir_fd=target)
            elif not stat.S_ISSOCK(status.st_mode):
                first = links.setdefault((status.st_dev, status.st_ino), (path, name)) if status.st_nlink > 1 else None
                if first is None or first == (path, name):
                    copy_entry(source, target, name, status)
                else:
                    _link(target_fd, *first, target, name)


def _link(root_fd: int, directory: str, existing: str, target: int, name: str) -> None:
    fd = open_directory(root_fd, directory)
    try:
        os.link(existing, name, src_dir_fd=fd, dst_dir_fd=target, follow_symlinks=False)
    finally:
        os.close(fd)


def copy_entry(source: int, target: int, name: str, status: os.stat_result) -> None:
    """Copy an entry that is no directory from one directory to another that has none of its name. Raises OSError."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(source, target, name, status)
        return
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    file = f"/proc/self/fd/{target}/{name}"
    if kind != stat.S_IFLNK:
        os.chmod(name, status.st_mode & 0o7777, dir_fd=target)
    xattrs.write(file, xattrs.read(f"/proc/self/fd/{source}/{name}"), name)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str, status: os.stat_result) -> None:
    read = os.open(name, _OPEN_FILE, dir_fd=source)
    try:
        written = os.open(name, _CREATE, 0o600, dir_fd=target)
        try:
            copy_range(read, written, status.st_size, sparse=status.st_blocks * 512 < status.st_size)
            _give(written, status, read, name)
        finally:
            os.close(written)
    finally:
        os.close(read)


def merge(layer_fd: int, tree_fd: int) -> None:
    """Move everything in a layer into the tree beneath it: directories merge, whatever else is there is replaced.

    Both are on one file system; of the layer, empty directories are left. Raises OSError.
    """
    for _, source, target in _both(layer_fd, tree_fd):
        for name, status in _listed(source):
            there = status_of(name, target)
            if stat.S_ISDIR(status.st_mode):
                _have_directory(name, target, there)
                continue
            if there is not None and stat.S_ISDIR(there.st_mode):
                remove(name, target)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _have_directory(name: str, parent: int, there: os.stat_result | None) -> None:
    """Have a directory of that name, in whose place is what ``there`` says."""
    if there is not None and not stat.S_ISDIR(there.st_mode):
        os.unlink(name, dir_fd=parent)
        there = None
    if there is None:
        os.mkdir(name, 0o700, dir_fd=parent)


def mirror(source_fd: int, target_fd: int) -> None:
    """Make a tree what another one is, changing what differs: of an overlay, little is copied up. Raises OSError."""
    from minidock.drivers.compare import same_entry

    links: dict[tuple[int, int], tuple[str, str]] = {}
    for path, source, target in _both(source_fd, target_fd):
        wanted = dict(_listed(source))
        for name in os.listdir(target):
            if name not in wanted:
                remove(name, target)
        for name, status in wanted.items():
            there = status_of(name, target)
            if stat.S_ISDIR(status.st_mode):
                _have_directory(name, target, there)
                continue
            linked = status.st_nlink > 1
            if there is not None:
                alone = not linked and there.st_nlink == 1 and not stat.S_ISDIR(there.st_mode)
                if alone and same_entry(source, target, name, status, there):
                    continue
                remove(name, target)
            first = links.setdefault((status.st_dev, status.st_ino), (path, name)) if linked else (path, name)
            if first == (path, name):
                copy_entry(source, target, name, status)
            else:
                _link(target_fd, *first, target, name)


def in_the_way(layer_fd: int, tree_fd: int) -> str:
    """The path of a directory in the tree that ``merge`` would remove for something else of its name; "" if there is
    none. Raises OSError."""
    pending = [""]
    while pending:
        path = pending.pop()
        source = open_directory(layer_fd, path)
        try:
            target = open_directory(tree_fd, path)
            try:
                for name, status in _listed(source):
                    there = status_of(name, target)
                    if there is not None and stat.S_ISDIR(there.st_mode):
                        inner = f"{path}/{name}" if path else name
                        if not stat.S_ISDIR(status.st_mode):
                            return inner
                        pending.append(inner)
            finally:
                os.close(target)
        finally:
            os.close(source)
    return ""


def disk_usage(root_fd: int) -> int:
    """Bytes that a tree takes on disk, hard links once. Raises OSError."""
    total = os.fstat(root_fd).st_blocks * 512
    seen: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        path = pending.pop()
        fd = open_directory(root_fd, path)
        try:
            for name, status in _listed(fd):
                if stat.S_ISDIR(status.st_mode):
                    pending.append(f"{path}/{name}" if path else name)
                elif status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
        finally:
            os.close(fd)
    return total


def _both(source_fd: int, target_fd: int) -> Iterator[tuple[str, int, int]]:
    """Each directory of the source, parents first, with the target's of that name, which the caller makes; when all are
    done, the target's directories get the attributes and times of the source's."""
    statuses: list[tuple[str, os.stat_result]] = []
    pending = [""]
    while pending:
        path = pending.pop()
        source = open_directory(source_fd, path)
        try:
            statuses.append((path, os.fstat(source)))
            pending += [
                f"{path}/{name}" if path else name for name, status in _listed(source) if stat.S_ISDIR(status.st_mode)
            ]
            target = open_directory(target_fd, path)
            try:
                yield path, source, target
            finally:
                os.close(target)
        finally:
            os.close(source)
    for path, status in statuses:
        source, target = open_directory(source_fd, path), -1
        try:
            target = open_directory(target_fd, path)
            _give(target, status, source, path)
        finally:
            os.close(source)
            if target >= 0:
                os.close(target)


def give_attributes(source: int, target: int) -> None:
    """Give an open directory the owner, mode, attributes and times of another. Raises OSError."""
    _give(target, os.fstat(source), source, "")


def _give(target: int, status: os.stat_result, source: int, name: str) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, status.st_mode & 0o7777)
    xattrs.replace(target, xattrs.read(source), name)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _listed(fd: int) -> list[tuple[str, os.stat_result]]:
    with os.scandir(fd) as entries:
        return [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
