"""The container's view of its cgroup: a namespace of its own, mounted at /sys/fs/cgroup."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from minidock.kernel import mount as km
from minidock.kernel import namespaces as ns
from minidock.kernel.resolve import open_in_root
from minidock.runtime.attributes import set_attributes

if TYPE_CHECKING:
    from minidock.kernel.cgroups import Layout
    from minidock.runtime.context import ChildContext

_ATTRS = km.MOUNT_ATTR_NOSUID | km.MOUNT_ATTR_NODEV | km.MOUNT_ATTR_NOEXEC


class JoinCgroup(NamedTuple):
    """Enter the cgroup's version 1 hierarchies; the child is born into the version 2 one where there is one.

    Moving another process waits some 10 ms for a grace period; moving oneself, thread by thread, does not.
    """

    name: str
    where: str = "child"
    why: str = "resources and devices"

    def describe(self) -> str:
        return f"join cgroup {self.name}"

    def execute(self, context: ChildContext) -> None:
        context.cgroup.attach_self(born="unified" in context.cgroup.paths)


class LeaveCgroupNamespace(NamedTuple):
    """Enter a cgroup namespace of one's own whose root is the cgroup that was just joined (cgroup_namespaces(7))."""

    where: str = "child"
    why: str = "resources and devices"

    def describe(self) -> str:
        return "unshare the cgroup namespace: the container's own cgroup is the root of what it sees"

    def execute(self, context: ChildContext) -> None:
        del context
        ns.unshare(ns.CLONE_NEWCGROUP)


class MountCgroups(NamedTuple):
    """Mount what the cgroup namespace shows, in the form of the host's layout; nothing where it has none."""

    layout: Layout
    target: str
    read_only: bool
    where: str = "child"
    why: str = "resources and devices"

    def describe(self) -> str:
        access = "ro" if self.read_only else "rw"
        return f"mount cgroup (version {self.layout.version}) on {self.target} {access}"

    def execute(self, context: ChildContext) -> None:
        attrs = _ATTRS | (km.MOUNT_ATTR_RDONLY if self.read_only else 0)
        if self.layout.version == 2:
            tree = km.new_mount("cgroup2", attrs=attrs, source="cgroup")
            context.attach(tree, self.target, directory=True)
            os.close(tree)
        elif self.layout.version == 1:
            self._mount_version_1(context, attrs)

    def _mount_version_1(self, context: ChildContext, attrs: int) -> None:
        """One mount for each hierarchy, below a tmpfs that becomes read-only when all directories are made."""
        groups: dict[str, list[str]] = {}
        for controller, path in self.layout.controllers.items():
            # Beside version 2 no group of version 1 is made for the freezer: what is mounted would be the host's root.
            if controller != "freezer" or not self.layout.unified:
                groups.setdefault(path, []).append(controller)
        tree = km.new_mount("tmpfs", (("mode", "755"), ("size", "64k")), attrs=_ATTRS, source="cgroup")
        context.attach(tree, self.target, directory=True)
        for controllers in groups.values():
            name = ",".join(controllers)
            os.mkdir(name, 0o755, dir_fd=tree)
            point = open_in_root(tree, name, os.O_PATH | os.O_DIRECTORY)
            mounted = km.new_mount("cgroup", tuple((controller, None) for controller in controllers), attrs=attrs)
            km.move_mount(mounted, point)
            os.close(mounted)
            os.close(point)
        if self.read_only:
            set_attributes(tree, km.MOUNT_ATTR_RDONLY)
        os.close(tree)
