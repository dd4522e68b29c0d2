"""What the steps of one start share: the parent's side and the child's side."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import ContainerStartError
from minidock.kernel import mount as km
from minidock.kernel.files import fs_magic
from minidock.kernel.resolve import open_in_root
from minidock.model.spec import LXCFS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.kernel.cgroups import Cgroup
    from minidock.log import Log
    from minidock.model.users import Identity

_PROC_MAGIC = 0x9FA0


class Stdio(NamedTuple):
    """The descriptors that become 0, 1 and 2 of the command.

    With ``terminal`` a pty is opened in the container's own devpts and the descriptors are not used; ``winsize`` is its
    first size as (rows, columns).
    """

    stdin: int
    stdout: int
    stderr: int
    terminal: bool = False
    winsize: tuple[int, int] = (24, 80)


class ParentContext:
    """What is known of the child once it is born, and its ``cgroup``, which the first step made.

    ``pid`` is its number in the /proc at hand, the host's, whatever pid namespace the parent is in. ``lowers`` are the
    root file system's layers that had to be opened before the birth, as descriptors that the child inherits; ``trees``
    are those of further trees, by the target of their mount.
    """

    __slots__ = ("cgroup", "log", "lowers", "pid", "pidfd", "trees")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.pid = 0
        self.pidfd = -1
        self.cgroup: Cgroup | None = None
        self.lowers: list[str | int] = []
        self.trees: dict[str, list[str | int]] = {}

    def close_lowers(self) -> None:
        """Let go of the layers; a child has its own descriptors of them."""
        opened = [self.lowers, *self.trees.values()]
        self.lowers, self.trees = [], {}
        for lower in (lower for lowers in opened for lower in lowers):
            if isinstance(lower, int):
                os.close(lower)


class ChildContext:
    """The state that the child's steps hand on: descriptors of the new root, and who the command will be.

    ``log`` is the descriptor that the debug log goes to.
    """

    __slots__ = (
        "cgroup",
        "console",
        "dev",
        "env",
        "identity",
        "limits",
        "log",
        "lowers",
        "proc",
        "report",
        "root",
        "stdio",
        "stubs",
        "trampoline",
        "trees",
    )

    def __init__(
        self,
        *,
        cgroup: Cgroup,
        stdio: Stdio,
        trampoline: int,
        console: int,
        report: int,
        log: int = 2,
        lowers: Sequence[str | int] = (),
        trees: Mapping[str, Sequence[str | int]] | None = None,
    ) -> None:
        self.cgroup = cgroup
        self.lowers = lowers
        self.trees = trees or {}
        self.stdio = stdio
        self.trampoline = trampoline
        self.console = console
        self.report = report
        self.log = log
        self.root = -1
        self.proc = -1
        self.dev = -1
        self.env: dict[str, str] = {}
        self.identity: Identity | None = None
        self.limits: tuple[tuple[str, int, int], ...] = ()
        self.stubs: list[str] = []

    def attach(self, mount: int, target: str, *, directory: bool, strict: bool = False) -> None:
        """Attach the detached ``mount`` at ``target`` inside the new root, making a mount point where there is none."""
        point = self.mount_point(target, directory=directory, strict=strict)
        try:
            km.move_mount(mount, point)
        finally:
            os.close(point)

    def mount_point(self, target: str, *, directory: bool, strict: bool = False) -> int:
        """An O_PATH descriptor of ``target`` in the new root, made (and noted as a stub) if it is missing.

        With ``strict`` the target is one of the pseudo file systems' places and must be an ordinary directory, not a
        link (CVE-2023-27561); without it, the target must not lie on proc, wherever links of the image lead.
        """
        try:
            point = open_in_root(self.root, target, os.O_PATH, follow=not strict)
        except FileNotFoundError:
            self._make_stub(target, directory=directory)
            point = open_in_root(self.root, target, os.O_PATH, follow=not strict)
        try:
            self._check_point(point, target, directory=directory, strict=strict)
        except BaseException:
            os.close(point)
            raise
        return point

    def _check_point(self, point: int, target: str, *, directory: bool, strict: bool) -> None:
        is_directory = stat.S_ISDIR(os.fstat(point).st_mode)
        if strict:
            if not is_directory:
                raise ContainerStartError(f"cannot mount {target}: in the image it must be an ordinary directory")
            return
        if is_directory != directory:
            kinds = ("a directory", "a file") if directory else ("a file", "a directory")
            raise ContainerStartError(f"cannot mount {kinds[0]} on {target}: in the container it is {kinds[1]}")
        if fs_magic(f"/proc/self/fd/{point}") == _PROC_MAGIC and target not in LXCFS:
            raise ContainerStartError(f"cannot mount on {target}: it leads into /proc")

    def _make_stub(self, target: str, *, directory: bool) -> None:
        """Make the missing tail of ``target``; every directory that gains an entry keeps its times.

        So a stub that is taken away again leaves no difference behind.
        """
        parts = [part for part in target.split("/") if part]
        for count in range(1, len(parts) + 1):
            path = "/" + "/".join(parts[:count])
            try:
                os.close(open_in_root(self.root, path, os.O_PATH))
                continue
            except FileNotFoundError:
                parent = open_in_root(self.root, "/" + "/".join(parts[: count - 1]), os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._make_entry(parent, parts[count - 1], directory=directory or count < len(parts))
                # What is made on a mount inside of the tree, such as /dev, goes with that mount.
                if os.fstat(parent).st_dev == os.fstat(self.root).st_dev:
                    self.stubs.append(f"{self._path_inside(parent)}/{parts[count - 1]}")
            finally:
                os.close(parent)

    def _path_inside(self, directory: int) -> str:
        """The real path of a directory of the tree: links of the image may have led to it."""
        root = os.readlink(f"/proc/self/fd/{self.root}").rstrip("/")
        return os.readlink(f"/proc/self/fd/{directory}").removeprefix(root).rstrip("/")

    def _make_entry(self, parent: int, name: str, *, directory: bool) -> None:
        before = os.fstat(parent)
        try:
            if directory:
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
        except FileExistsError as error:
            raise OSError(errno.ELOOP, "a dangling symbolic link is in the way", name) from error
        with contextlib.suppress(PermissionError):
            os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
