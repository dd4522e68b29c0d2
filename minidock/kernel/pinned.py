"""A mount namespace without a process, pinned in a directory: mounts that many share and no process's table shows.

On the directory lies a small private tmpfs, which is also the root of the pinned namespace. For each mount it has a
folder ``NAME``, on which only the namespace has the mount, and a mark ``NAME.used``, made when the mount is in place: a
symbolic link whose text says what is mounted and whose time is that of the last use; both sides see them. The file
``ns`` is the namespace itself, bound there from nsfs. So the host's mount table has two lines more, and a copy of the
host's namespace gets nothing of the mounts, as the kernel copies no bound mount namespace: there the directory looks as
if nothing were pinned.

Sources: mount_namespaces(7), setns(2), pivot_root(2), open_tree(2), rmdir(2), copy_tree() and do_loopback() in
fs/namespace.c. Every function raises OSError with errno and path.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from minidock.kernel import mount
from minidock.kernel.files import fs_magic, lock_exclusive
from minidock.kernel.namespaces import CLONE_NEWNS, setns, unshare
from minidock.kernel.process import signals_blocked

_EROFS_MAGIC = 0xE0F5E1E2
_NSFS_MAGIC = 0x6E736673
_NAMESPACE = "ns"
_MARK = ".used"
_HEXADECIMAL = "0123456789abcdef"
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Pinned:
    """The EROFS mounts that are kept in the pinned namespace of ``directory``, whose parent must exist.

    A mount's name is 64 hexadecimal digits (ValueError for others). Nothing is made before the first ``attach``. A
    process that is killed at any point leaves nothing that the next ``attach``, ``detach`` or ``unpin`` does not mend.
    """

    __slots__ = ("directory",)

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def names(self) -> set[str]:
        """What is mounted, as the marks tell without entering; empty where nothing is pinned."""
        return {name.removesuffix(_MARK) for name in self._listed() if name.endswith(_MARK)}

    def clones(self, names: Sequence[str]) -> list[int]:
        """CLOEXEC descriptors of detached clones of the mounts, in the order of ``names``; marks them as used now.

        One that is not there is waited for while somebody has the lock: it may be about to be another. Raises
        FileNotFoundError naming the first that is not there; nothing stays open then.
        """
        for name in names:
            _check(name)
        if not names:
            return []
        try:
            return self._clones(names)
        except FileNotFoundError:
            if not self._is_pinned():
                raise
        with self.lock():
            return self._clones(names)

    def _clones(self, names: Sequence[str]) -> list[int]:
        try:
            namespace = os.open(f"{self.directory}/{_NAMESPACE}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _not_mounted(names[0]) from None
        try:
            if fs_magic(namespace) != _NSFS_MAGIC:
                raise _not_mounted(names[0])
            return _inside(namespace, lambda: _clone_all(names))
        finally:
            os.close(namespace)

    def note(self, name: str) -> str:
        """What ``attach`` noted of a mount, empty where there is none of that name."""
        _check(name)
        if not self._is_pinned():
            return ""
        try:
            return os.readlink(f"{self.directory}/{name}{_MARK}")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            # EINVAL: a mark of another kind, which says nothing.
            return ""

    def touch(self, name: str) -> None:
        """Mark a mount as used now; one that is not there is none."""
        _check(name)
        with suppress(FileNotFoundError):
            os.utime(f"{self.directory}/{name}{_MARK}", follow_symlinks=False)

    def attach(self, name: str, mount_fd: int, *, note: str = "-") -> None:
        """Keep the detached EROFS mount that ``mount_fd`` names as ``name``, with a ``note`` of what it is made of; one
        that is there already stays.

        Makes directory (0700) and namespace where they are missing. The caller holds ``lock`` and closes ``mount_fd``.
        """
        _check(name)
        if not self._is_pinned():
            self._unmount()
            self._make()
        namespace = os.open(f"{self.directory}/{_NAMESPACE}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _inside(namespace, lambda: _attach(name, mount_fd, note))
        finally:
            os.close(namespace)

    def detach(self, name: str) -> None:
        """Unmount ``name``: its users keep their clones. One that is not there is no error. The caller holds
        ``lock``."""
        _check(name)
        if not self._is_pinned():
            return
        with suppress(FileNotFoundError):
            os.unlink(f"{self.directory}/{name}{_MARK}")
        # A folder's removal unmounts what other namespaces have on it (since Linux 3.18): nobody need enter.
        with suppress(FileNotFoundError):
            os.rmdir(f"{self.directory}/{name}")

    def idle(self, seconds: float) -> list[str]:
        """The names that were not cloned for that long, sorted; with those that a killed ``attach`` or ``detach`` left
        without a mark, by the age of their folder."""
        import time

        since: dict[str, float] = {}
        for entry in sorted(self._listed(), key=len):
            with suppress(FileNotFoundError):
                # The mark comes after the folder and tells better.
                since[entry.removesuffix(_MARK)] = os.lstat(f"{self.directory}/{entry}").st_mtime
        limit = time.time() - seconds
        return sorted(name for name, used in since.items() if used <= limit)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the flock(2) of the file ``<directory>.lock`` alone; it is made when missing and stays."""
        fd = os.open(f"{self.directory}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock_exclusive(fd)
            yield
        finally:
            os.close(fd)

    def unpin(self) -> None:
        """Let go of the namespace with all its mounts, and remove the directory. What is gone already is no error. The
        caller holds ``lock``."""
        self._unmount()
        with suppress(FileNotFoundError):
            os.rmdir(self.directory)

    def _listed(self) -> list[str]:
        if not self._is_pinned():
            return []
        try:
            entries = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        return [entry for entry in entries if _is_name(entry.removesuffix(_MARK))]

    def _is_pinned(self) -> bool:
        try:
            return fs_magic(f"{self.directory}/{_NAMESPACE}") == _NSFS_MAGIC
        except FileNotFoundError:
            return False

    def _unmount(self) -> None:
        """Unmount what lies on the directory: a pin, one that was not finished, or what a copy of the namespace in
        which it was made has of it."""
        with suppress(FileNotFoundError):
            parent = os.stat(os.path.dirname(os.path.abspath(self.directory))).st_dev
            while os.stat(self.directory, follow_symlinks=False).st_dev != parent:
                mount.umount2(self.directory, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)

    def _make(self) -> None:
        with suppress(FileExistsError):
            os.mkdir(self.directory, 0o700)
        attributes = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
        tree = mount.new_mount("tmpfs", [("mode", "0700"), ("size", "1m")], attrs=attributes, source="minidock-layers")
        try:
            mount.move_mount(tree, self.directory)
            # On a shared mount it has become shared, too, and there the kernel refuses a bound mount namespace.
            mount.mount_setattr(tree, propagation=mount.MS_PRIVATE)
            os.close(os.open(_NAMESPACE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=tree))
            _bind_new_namespace(tree, f"{self.directory}/{_NAMESPACE}")
        finally:
            os.close(tree)


def _is_name(name: str) -> bool:
    return len(name) == 64 and not name.strip(_HEXADECIMAL)


def _check(name: str) -> None:
    if not _is_name(name):
        raise ValueError(f"not 64 hexadecimal digits: {name!r}")


def _not_mounted(name: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "not mounted", name)


def _bind_new_namespace(root: int, target: str) -> None:
    """Make a mount namespace that holds nothing but a clone of the mount ``root``, and bind it on the file ``target``.

    So that there are no loops, the kernel refuses to bind (ELOOP) a namespace with a lower number than the caller's
    (mnt_ns_loop()). Each processor has a batch of the numbers to give (Linux 6.18), so that a newer namespace may well
    have a lower one; made on the processor on which the caller's was made it has not.
    """
    for processor in range(-1, os.cpu_count() or 1):
        try:
            return _bind_namespace_of(processor, root, target)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
    raise OSError(errno.ELOOP, "the kernel gives new mount namespaces lower numbers than the caller's has", target)


def _bind_namespace_of(processor: int, root: int, target: str) -> None:
    from minidock.kernel.descriptors import from_thread

    opened = [mount.open_tree(root)]
    try:
        opened += from_thread(lambda: _empty_namespace(processor, opened[0]))
        opened.append(mount.open_tree(opened[1]))
        mount.move_mount(opened[2], target)
    finally:
        _close(opened)


def _empty_namespace(processor: int, root: int) -> list[int]:
    """Move the caller to a mount namespace that holds the detached mount ``root`` alone; returns the namespace."""
    if processor >= 0:
        # It may be one that this cgroup is not allowed.
        with suppress(OSError):
            os.sched_setaffinity(0, {processor})
    unshare(CLONE_NEWNS)
    namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Leaves a chroot, whose root need not be a mount.
        setns(namespace, CLONE_NEWNS)
        mount.mount("", "/", "", mount.MS_REC | mount.MS_PRIVATE)
        mount.move_mount(root, "/")
        os.fchdir(root)
        mount.pivot_root(".", ".")
        mount.umount2(".", mount.MNT_DETACH)
    except BaseException:
        os.close(namespace)
        raise
    return [namespace]


def _inside(namespace: int, work: Callable[[], list[int]]) -> list[int]:
    """Run ``work`` in the mount namespace, with its root as the current directory.

    The calling thread itself goes there and comes back, to the root and the current directory that it had, where the
    kernel lets it: where no other thread shares these. Another thread goes otherwise.

    ``work`` must import nothing: there are no files in there.
    """
    opened = [os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), os.open("/", _FOLDER)]
    opened.append(os.open(".", _FOLDER))
    made: list[int] = []
    try:
        with signals_blocked():
            try:
                setns(namespace, CLONE_NEWNS)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                made = _inside_thread(namespace, work)
            else:
                try:
                    made = work()
                finally:
                    _return_to(*opened)
    except BaseException:
        # Or a signal's handler, when they are delivered again.
        _close(made)
        raise
    finally:
        _close(opened)
    return made


def _return_to(namespace: int, root: int, directory: int) -> None:
    setns(namespace, CLONE_NEWNS)
    os.fchdir(root)
    os.chroot(".")
    os.fchdir(directory)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _inside_thread(namespace: int, work: Callable[[], list[int]]) -> list[int]:
    from minidock.kernel.descriptors import from_thread

    def make() -> list[int]:
        setns(namespace, CLONE_NEWNS)
        return work()

    return from_thread(make)


def _clone_all(names: Sequence[str]) -> list[int]:
    clones: list[int] = []
    empty = os.stat(".").st_dev
    try:
        for name in names:
            clones.append(mount.open_tree(name))
            if os.fstat(clones[-1]).st_dev == empty:
                raise _not_mounted(name)
            # Without a mark it is not mounted for ``names``, and the next ``attach`` mends that.
            os.utime(name + _MARK, follow_symlinks=False)
    except OSError as error:
        _close(clones)
        if error.errno == errno.ENOENT:
            raise _not_mounted(name) from None
        raise
    return clones


def _attach(name: str, mount_fd: int, note: str) -> list[int]:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700)
    mounted, marked = fs_magic(name) == _EROFS_MAGIC, os.path.lexists(name + _MARK)
    if mounted and marked:
        os.utime(name + _MARK, follow_symlinks=False)
        return []
    if mounted:
        # Who was killed before the mark may have mounted something else.
        mount.umount2(name, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
    if marked:
        os.unlink(name + _MARK)
    mount.move_mount(mount_fd, name)
    os.symlink(note, name + _MARK)
    return []
