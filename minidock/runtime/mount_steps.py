"""Steps of the child that build its tree: everything before pivot_root.

All mounts are made in the child's own mount namespace, most of them detached first and then attached to a descriptor
that was resolved inside the new root, so that no link of the image and no race can lead one elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from minidock.errors import ContainerStartError
from minidock.kernel import mount as km
from minidock.kernel.overlay import overlay
from minidock.kernel.resolve import mkdirs_in_root, open_beneath, open_in_root
from minidock.kernel.root import pivot_into
from minidock.model.steps import OverlayMount, RootMount, TreeMount
from minidock.runtime.attributes import set_attributes
from minidock.runtime.context import ChildContext
from minidock.runtime.options import MountOptions

_STRICT = frozenset({"/proc", "/sys", "/dev"})
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
    where: str = "child"

    @property
    def why(self) -> str:
        return "writable layer over the image's layers" if isinstance(self.root, OverlayMount) else "root file system"

    def describe(self) -> str:
        if isinstance(self.root, OverlayMount):
            return describe_overlay(self.root, self.path)
        return f"mount bind {self.root.path} on {self.path}{' ro' if self.root.read_only else ''}"

    def execute(self, context: ChildContext) -> None:
        if isinstance(self.root, OverlayMount):
            tree = mount_overlay(self.root, context.lowers)
        else:
            tree = km.open_tree(self.root.path, recursive=True)
        km.move_mount(tree, self.path)
        if isinstance(self.root, TreeMount):
            # It came as the host's slave: what is mounted there later would appear here.
            set_attributes(tree, propagation=km.MS_PRIVATE, recursive=True)
            if self.root.read_only:
                set_attributes(tree, km.MOUNT_ATTR_RDONLY)
        context.root = tree


def describe_overlay(root: OverlayMount, path: str) -> str:
    """The overlay in words; of a layer that is mounted from its tarball, the tarball."""
    upper = f" upperdir={root.upper} workdir={root.work}" if root.upper else ""
    lowers = ":".join(lower if isinstance(lower, str) else lower.tar for lower in root.lowers)
    return f"mount overlay on {path} lowerdir={lowers}{upper}"


def mount_overlay(root: OverlayMount, opened: Sequence[str | int]) -> int:
    """A descriptor of the detached overlay. Of layers in another mount namespace the parent has ``opened`` descriptors,
    in the order of all layers; it is empty where there are none."""
    lowers = opened or [lower for lower in root.lowers if isinstance(lower, str)]
    assert len(lowers) == len(root.lowers), "a layer that nobody opened would be missing from the tree"
    mixed = any(isinstance(lower, int) for lower in lowers)
    return overlay(lowers, upper=root.upper, work=root.work, volatile=root.volatile, xino=mixed)


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
        except OSError as error:
            # A kernel may be built without POSIX message queues; nothing else is optional.
            if self.fstype == "mqueue" and error.errno == errno.ENODEV:
                return
            raise
        # The descriptor stays open where a later step writes through it; exec closes it.
        context.attach(fd, self.target, directory=True, strict=self.target in _STRICT)
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
        options = self.options
        try:
            context.attach(tree, self.target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
            set_attributes(tree, propagation=options.propagation, recursive=options.propagation_recursive)
            if options.attrs:
                set_attributes(tree, options.attrs)
            if options.recursive_attrs:
                set_attributes(tree, options.recursive_attrs, recursive=True)
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
        try:
            base = os.open(self.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ContainerStartError(
                f"cannot use {self.source}, of which {self.subpath!r} is needed: {error.strerror}"
            ) from None
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
        for path, mode, major, minor, uid, gid in self.nodes:
            directory, _, name = path.removeprefix("/dev/").rpartition("/")
            parent = mkdirs_in_root(context.dev, directory or ".")
            try:
                os.mknod(name, mode, os.makedev(major, minor), dir_fd=parent)
                # mknod's own mode is cut by the umask; nobody but this process is in here yet.
                os.chmod(name, stat.S_IMODE(mode), dir_fd=parent)
                if uid or gid:
                    os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from None
            finally:
                os.close(parent)
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
                        # A detached mount is cloned from Linux 6.15 on (EINVAL before), an attached one always.
                        _cover(point, os.dup(empty))
                    else:
                        _cover(point, km.open_tree(empty))
                else:
                    _cover(point, km.open_tree(null), km.MOUNT_ATTR_RDONLY)
                os.close(point)

    def _null(self, context: ChildContext) -> int:
        """The container's own null device, or the host's where its /dev is no tmpfs of ours."""
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        null = os.open("null", flags, dir_fd=context.dev) if context.dev >= 0 else os.open("/dev/null", flags)
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
                _cover(point, km.open_tree(point, recursive=True), km.MOUNT_ATTR_RDONLY, recursive=True)
                os.close(point)


def _cover(point: int, cover: int, attributes: int = 0, *, recursive: bool = False) -> None:
    """Mount ``cover`` on ``point`` and close it."""
    km.move_mount(cover, point)
    if attributes:
        set_attributes(cover, attributes, recursive=recursive)
    os.close(cover)


class ReadOnlyRoot(NamedTuple):
    """Make the root read-only, once every mount point and the working directory are made; mounts in it stay as is."""

    where: str = "child"
    why: str = "root file system"

    def describe(self) -> str:
        return "remount / ro"

    def execute(self, context: ChildContext) -> None:
        set_attributes(context.root, km.MOUNT_ATTR_RDONLY)


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
