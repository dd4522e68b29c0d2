"""Steps of a build step's further mounts: parts of trees (stages, images, caches, files of the context) and secrets.

A tree that is an overlay, and the tmpfs that holds a secret, are first mounted on a private folder of the host (its
mount is the container's alone and goes with the host's tree at the pivot), since before Linux 6.15 nothing can be
cloned from a mount that is attached nowhere. From there a part of it, found by a descriptor that never leaves the tree,
is cloned and attached.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import ContainerStartError
from minidock.kernel import mount as km
from minidock.kernel.resolve import open_in_root
from minidock.model.spec import SECRET, SUBPATH, TREE
from minidock.model.steps import LayerMount, OverlayMount, RootMount, Step, decode_root
from minidock.runtime.attributes import set_attributes
from minidock.runtime.mount_steps import describe_overlay, mount_overlay

if TYPE_CHECKING:
    from minidock.runtime.context import ChildContext, ParentContext
    from minidock.runtime.options import MountOptions

_SECRET_ATTRS = km.MOUNT_ATTR_RDONLY | km.MOUNT_ATTR_NOSUID | km.MOUNT_ATTR_NODEV | km.MOUNT_ATTR_NOEXEC
_NAME = "secret"


def open_trees(mounts: Iterable[dict[str, Any]]) -> Iterator[Step]:
    """The parent's steps for those mounts of trees whose layers only it can reach."""
    for mount in mounts:
        root = decode_root(mount[TREE])
        if isinstance(root, OverlayMount) and not all(isinstance(lower, str) for lower in root.lowers):
            yield OpenTree(root.lowers, mount["destination"])


def tree_step(mount: dict[str, Any], options: MountOptions, text: str) -> Step:
    """The child's step for a mount of the spec that has ``TREE`` or ``SECRET``; its source is the private folder."""
    target, place = mount["destination"], mount["source"]
    if TREE in mount:
        return MountPart(decode_root(mount[TREE]), mount.get(SUBPATH, ""), place, target, options, text)
    return MountSecret(place, target, mount[SECRET])


class OpenTree(NamedTuple):
    """Open the layers, mounted from their tarballs, of a tree of which a part is mounted at ``target``."""

    lowers: tuple[str | LayerMount, ...]
    target: str
    where: str = "parent"
    why: str = "build mounts"

    def describe(self) -> str:
        tars = [lower.tar for lower in self.lowers if not isinstance(lower, str)]
        return f"open the layers for {self.target} mounted from their tarballs: {' '.join(tars)}"

    def execute(self, context: ParentContext) -> None:
        from minidock.kernel.lowers import open_lowers

        context.trees[self.target] = open_lowers(self.lowers)


class MountPart(NamedTuple):
    """Attach a file or directory of a tree at ``target``; ``subpath`` is empty for the whole tree."""

    root: RootMount
    subpath: str
    place: str
    target: str
    options: MountOptions
    text: str
    where: str = "child"
    why: str = "build mounts"

    def describe(self) -> str:
        part = f"bind /{self.subpath} of it on {self.target} {self.text}"
        if isinstance(self.root, OverlayMount):
            return f"{describe_overlay(self.root, self.place)}; {part}"
        return f"open {self.root.path}; {part}"

    def execute(self, context: ChildContext) -> None:
        tree = self._open_tree(context)
        try:
            point = self._find(tree)
        finally:
            os.close(tree)
        _attach(context, point, self.target, self.options.attrs)

    def _open_tree(self, context: ChildContext) -> int:
        if not isinstance(self.root, OverlayMount):
            return os.open(self.root.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        tree = mount_overlay(self.root, context.trees.get(self.target, ()))
        km.move_mount(tree, self.place)
        return tree

    def _find(self, tree: int) -> int:
        """The part as a descriptor: links are followed inside the tree, and whoever changes it meanwhile changes
        nothing about what is mounted."""
        try:
            return open_in_root(tree, self.subpath or ".", os.O_PATH)
        except OSError as error:
            raise ContainerStartError(
                f"cannot mount {self.subpath!r} on {self.target}: {(error.strerror or '').lower()}",
                hint="source is a path below what from names, or below the cache directory",
            ) from None


class MountSecret:
    """Show a secret as a file at ``target``, kept in memory; no text of this object has its content.

    ``secret`` has ``id``, ``data`` (base64), ``mode``, ``uid`` and ``gid``.
    """

    __slots__ = ("_secret", "place", "target")

    where = "child"
    why = "build mounts"

    def __init__(self, place: str, target: str, secret: dict[str, Any]) -> None:
        self.place = place
        self.target = target
        self._secret = secret

    def describe(self) -> str:
        secret = self._secret
        return (
            f"mount tmpfs on {self.place} for the secret {secret['id']!r}, mode {secret['mode']:04o} "
            f"owner {secret['uid']}:{secret['gid']}; bind it on {self.target} ro,nosuid,nodev,noexec"
        )

    def execute(self, context: ChildContext) -> None:
        tree = km.new_mount("tmpfs", (("mode", "0700"), ("size", "1m")), attrs=_SECRET_ATTRS & ~km.MOUNT_ATTR_RDONLY)
        try:
            km.move_mount(tree, self.place)
            self._write(tree)
            point = os.open(_NAME, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tree)
        finally:
            os.close(tree)
        _attach(context, point, self.target, _SECRET_ATTRS)

    def _write(self, tree: int) -> None:
        fd = os.open(_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=tree)
        try:
            data = memoryview(base64.b64decode(self._secret["data"]))
            while data:
                data = data[os.write(fd, data) :]
            os.fchown(fd, self._secret["uid"], self._secret["gid"])
            os.fchmod(fd, self._secret["mode"])
        finally:
            os.close(fd)


def _attach(context: ChildContext, point: int, target: str, attrs: int) -> None:
    """Attach a clone of what ``point`` is, which is closed, at ``target``."""
    try:
        part = km.open_tree(point)
    finally:
        os.close(point)
    try:
        context.attach(part, target, directory=stat.S_ISDIR(os.fstat(part).st_mode))
        set_attributes(part, attrs, propagation=km.MS_PRIVATE)
    finally:
        os.close(part)
