"""Steps of the child that build its tree: everything before pivot_root.

All mounts are made in the child's own mount namespace, most of them detached first and then attached to a descriptor
that was resolved inside the new root, so that no link of the image and no race can lead one elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import NamedTuple

from minidock.errors import ContainerStartError
from minidock.kernel import mount as km
from minidock.kernel.resolve import open_beneath, open_in_root
from minidock.kernel.root import pivot_into
from minidock.model.steps import OverlayMount, RootMount
from minidock.runtime.context import ChildContext
from minidock.runtime.options import MountOptions

PSEUDO = frozenset({"proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"})
_DEV_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
)


class DetachFromHost(NamedTuple):
    """Make the child's copy of the mount table a slave of the host's: nothing that is mounted here is seen there."""

    where: str = "child"
    why: str = "namespaces"

    def describe(self) -> str:
        return "mount / rslave,rec: mounts made from here on stay in the container's mount namespace"

    def execute(self, context: ChildContext) -> None:
        del context
        km.mount("none", "/", "", km.MS_SLAVE | km.MS_REC)


class MountRoot(NamedTuple):
    """Mount the image's layers and the writable layer as one tree on the bundle's ``path``."""

    root: RootMount
    path: str
    read_only: bool
    where: str = "child"

    @property
    def why(self) -> str:
        return "writable layer over the image's layers" if isinstance(self.root, OverlayMount) else "root file system"

    def describe(self) -> str:
        access = " ro" if self.read_only else ""
        if isinstance(self.root, OverlayMount):
            upper = f" upperdir={self.root.upper} workdir={self.root.work}" if self.root.upper else ""
            return f"mount overlay on {self.path}{access} lowerdir={':'.join(self.root.lowers)}{upper}"
        return f"mount bind {self.root.path} on {self.path}{access}"

    def execute(self, context: ChildContext) -> None:
        if isinstance(self.root, OverlayMount):
            tree = km.overlay(self.root.lowers, upper=self.root.upper, work=self.root.work)
        else:
            tree = km.open_tree(self.root.path, recursive=True)
        if self.read_only or (not isinstance(self.root, OverlayMount) and self.root.read_only):
            km.mount_setattr(tree, attr_set=km.MOUNT_ATTR_RDONLY)
        km.move_mount(tree, self.path)
        context.root = tree


class MountFilesystem(NamedTuple):
    """Mount a new instance of a file system at ``target``."""

    fstype: str
    source: str
    target: str
    options: MountOptions
    text: str
    where: str = "child"
    why: str = "file systems every container has"

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target} {self.text}"

    def execute(self, context: ChildContext) -> None:
        try:
            fd = km.new_mount(self.fstype, self.options.data, attrs=self.options.attrs, source=self.source)
        except OSError:
            # A kernel may be built without POSIX message queues; nothing else is optional.
            if self.fstype == "mqueue":
                return
            raise
        # The descriptor stays open where a later step writes through it; exec closes it.
        context.attach(fd, self.target, directory=True, strict=self.target in {"/proc", "/sys", "/dev"})
        if self.fstype == "proc" and self.target == "/proc":
            context.proc = fd
        elif self.fstype == "tmpfs" and self.target == "/dev":
            context.dev = fd
        else:
            os.close(fd)


class BindMount(NamedTuple):
    """Attach a file or directory of the host, or a path below a volume, at ``target``."""

    source: str
    target: str
    options: MountOptions
    text: str
    subpath: str
    why: str
    where: str = "child"

    def describe(self) -> str:
        below = f"/{self.subpath}" if self.subpath else ""
        return f"mount bind {self.source}{below} on {self.target} {self.text}"

    def execute(self, context: ChildContext) -> None:
        tree = self._open_source()
        try:
            directory = stat.S_ISDIR(os.fstat(tree).st_mode)
            km.mount_setattr(tree, propagation=self.options.propagation, recursive=self.options.propagation_recursive)
            if self.options.attrs:
                km.mount_setattr(tree, attr_set=self.options.attrs)
            if self.options.recursive_attrs:
                km.mount_setattr(tree, attr_set=self.options.recursive_attrs, recursive=True)
            context.attach(tree, self.target, directory=directory)
        finally:
            os.close(tree)

    def _open_source(self) -> int:
        if not self.subpath:
            try:
                return km.open_tree(self.source, recursive=self.options.recursive)
            except FileNotFoundError:
                raise ContainerStartError(
                    f"bind source path does not exist: {self.source}", hint=f"it is needed at {self.target}"
                ) from None
        base = os.open(self.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            below = open_beneath(base, self.subpath, os.O_PATH)
        except OSError as error:
            raise ContainerStartError(
                f"cannot use volume-subpath {self.subpath!r} of {self.source}: {error.strerror}"
            ) from None
        finally:
            os.close(base)
        try:
            return km.open_tree(below, recursive=self.options.recursive)
        finally:
            os.close(below)


class MakeDevices(NamedTuple):
    """Make the device nodes and links in the container's /dev, through the descriptor of its own tmpfs."""

    nodes: tuple[tuple[str, int, int, int, int, int], ...]
    where: str = "child"
    why: str = "devices"

    def describe(self) -> str:
        return "mknod " + " ".join(path for path, *_ in self.nodes) + "; link /dev/fd stdin stdout stderr ptmx core"

    def execute(self, context: ChildContext) -> None:
        if context.dev < 0:
            return
        for path, mode, major, minor, uid, gid in self.nodes:
            directory, _, name = path.removeprefix("/dev/").rpartition("/")
            parent = context.dev
            if directory:
                os.makedirs(f"/proc/self/fd/{context.dev}/{directory}", 0o755, exist_ok=True)
                parent = open_beneath(context.dev, directory, os.O_PATH | os.O_DIRECTORY)
            os.mknod(name, mode, os.makedev(major, minor), dir_fd=parent)
            os.chmod(f"/proc/self/fd/{parent}/{name}", stat.S_IMODE(mode))
            if uid or gid:
                os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        for name, value in _DEV_LINKS:
            os.symlink(value, name, dir_fd=context.dev)


class MaskPaths(NamedTuple):
    """Hide paths: a file behind /dev/null, a directory behind an empty read-only tmpfs."""

    paths: tuple[str, ...]
    where: str = "child"
    why: str = "masks"

    def describe(self) -> str:
        return "mask " + " ".join(self.paths)

    def execute(self, context: ChildContext) -> None:
        null = self._null(context)
        empty = -1
        for path in self.paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                point = open_in_root(context.root, path, os.O_PATH, follow=False)
                if stat.S_ISDIR(os.fstat(point).st_mode):
                    if empty < 0:
                        empty = km.new_mount(
                            "tmpfs", (("nr_blocks", "1"), ("nr_inodes", "1")), attrs=km.MOUNT_ATTR_RDONLY
                        )
                    cover = km.open_tree(empty)
                else:
                    cover = km.open_tree(null)
                    km.mount_setattr(cover, attr_set=km.MOUNT_ATTR_RDONLY)
                km.move_mount(cover, point)
                os.close(cover)
                os.close(point)

    def _null(self, context: ChildContext) -> int:
        if context.dev >= 0:
            null = os.open("null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=context.dev)
        else:
            null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(null)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
            raise ContainerStartError("cannot mask paths: /dev/null is not the null device")
        return null


class ReadOnlyPaths(NamedTuple):
    """Make paths read-only with everything below them."""

    paths: tuple[str, ...]
    where: str = "child"
    why: str = "masks"

    def describe(self) -> str:
        return "read-only " + " ".join(self.paths)

    def execute(self, context: ChildContext) -> None:
        for path in self.paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                point = open_in_root(context.root, path, os.O_PATH, follow=False)
                cover = km.open_tree(point, recursive=True)
                km.mount_setattr(cover, attr_set=km.MOUNT_ATTR_RDONLY, recursive=True)
                km.move_mount(cover, point)
                os.close(cover)
                os.close(point)


class PivotRoot(NamedTuple):
    """Make the new tree the root and let go of the host's (pivot_root(2), "pivot_root(".", ".")")."""

    path: str
    where: str = "child"
    why: str = "root file system"

    def describe(self) -> str:
        return f"pivot_root {self.path}; umount the host's tree; chroot ."

    def execute(self, context: ChildContext) -> None:
        pivot_into(context.root)
        os.close(context.root)
        context.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
