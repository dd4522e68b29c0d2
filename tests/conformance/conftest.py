"""Layers made for real, under each driver: what the conformance suite works with."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from minidock.drivers.interface import Driver
from minidock.drivers.packed import Packed
from minidock.drivers.registry import open_driver
from minidock.drivers.tar_reader import TarReader
from minidock.drivers.tarballs import Tars
from minidock.kernel import mount
from minidock.kernel.lowers import close_lowers, open_lowers
from minidock.kernel.overlay import overlay
from minidock.kernel.pinned import Pinned
from minidock.model.steps import OverlayMount

Snapshot = dict[str, tuple[Any, ...]]


def snapshot(root: str, *, marks: bool = True, times: bool = True) -> Snapshot:
    """Everything that a layer keeps of a tree, by path. ``marks`` keeps overlayfs's opaque marks, too.

    The last member is the first of several names of one file. The kernel's count of links does not tell that: of a file
    whose other name is deleted in a layer above, overlayfs still counts both.
    """
    groups: dict[tuple[int, int], list[str]] = {}
    found: Snapshot = {}
    pending = [""]
    while pending:
        path = pending.pop()
        full = f"{root}/{path}" if path else f"{root}/."
        status = os.lstat(full)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFCHR and status.st_rdev == 0:
            found[path] = ("whiteout",)
            continue
        content: object = b""
        if kind == stat.S_IFREG:
            with open(full, "rb") as file:
                content = file.read()
        elif kind == stat.S_IFLNK:
            content = os.readlink(full)
        elif kind == stat.S_IFDIR:
            pending += [f"{path}/{name}" if path else name for name in sorted(os.listdir(full), reverse=True)]
        names = [n for n in os.listxattr(full, follow_symlinks=False) if marks or not n.startswith("trusted.overlay.")]
        attributes = {name: os.getxattr(full, name, follow_symlinks=False) for name in sorted(names)}
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            groups.setdefault((status.st_dev, status.st_ino), []).append(path)
        found[path] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns if times else 0,
            status.st_rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
            content,
            attributes,
            "",
        )
    for names in groups.values():
        if len(names) > 1:
            found |= {name: (*found[name][:-1], names[0]) for name in names}
    return found


def whole_seconds(tree: Snapshot) -> Snapshot:
    """As packing leaves a tree: times cut, no sockets."""
    return {
        path: (*entry[:3], entry[3] // 10**9 * 10**9, *entry[4:])
        for path, entry in tree.items()
        if not stat.S_ISSOCK(entry[0])
    }


class Stack:
    """One driver, and a chain of layers that grows."""

    def __init__(self, driver: Driver, folder: str, blobs: str = "") -> None:
        self.driver = driver
        self.folder = folder
        self.blobs = blobs or folder
        self.diff_ids: tuple[str, ...] = ()
        self.tars: dict[str, bytes] = {}
        self._count = 0

    def new_folder(self) -> str:
        self._count += 1
        path = f"{self.folder}/{self._count}"
        os.mkdir(path)
        return path

    def prepared(self) -> str:
        """A fresh writable layer."""
        writable = self.new_folder()
        self.driver.prepare(self.diff_ids, writable)
        return writable

    @contextlib.contextmanager
    def mounted(self, writable: str | None, diff_ids: Sequence[str] | None = None) -> Iterator[str]:
        """The merged tree at a path that only this process has."""
        root = self.driver.mounts(self.diff_ids if diff_ids is None else diff_ids, writable)
        if isinstance(root, OverlayMount):
            lowers = open_lowers(root.lowers)
            fd = overlay(lowers, upper=root.upper, work=root.work)
            close_lowers(lowers)
        elif root.read_only:
            fd = overlay([root.path])
        else:
            fd = mount.open_tree(root.path)
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)

    def pack(self, writable: str, **options: Any) -> tuple[Packed, bytes]:
        out = io.BytesIO()
        packed = self.driver.pack(self.diff_ids, writable, out, **options)
        assert len(out.getvalue()) == packed.size
        return packed, out.getvalue()

    def tree_of(self, writable: str) -> str:
        """The directory that becomes the layer."""
        return f"{writable}/upper" if self.driver.name == "overlay2" else f"{writable}/tree"

    def edit(self, change: Callable[[str], object], **options: Any) -> Packed:
        """Change the merged tree and, if that differs in something, add the difference as a layer."""
        writable = self.prepared()
        with self.mounted(writable) as root:
            change(root)
        packed, tar = self.pack(writable, **options)
        if not packed.empty:
            self.diff_ids = (*self.diff_ids, packed.diff_id)
            self.driver.adopt(self.diff_ids, writable, packed, tar=self.keep(tar, packed.diff_id))
        return packed

    def keep(self, tar: bytes, diff_id: str) -> str:
        """Store a tar as a blob; returns its path."""
        self.tars[diff_id] = tar
        path = f"{self.blobs}/{diff_id.removeprefix('sha256:')}"
        with open(path, "wb") as file:
            file.write(tar)
        return path

    def unpack(self, tar: bytes, diff_id: str) -> None:
        """Add a layer from its tar, as its driver takes it: indexed where it can be, else unpacked."""
        self.diff_ids = (*self.diff_ids, diff_id)
        path = self.keep(tar, diff_id)
        with self.driver.indexer(self.diff_ids) as indexer:
            index = None
            if indexer is not None:
                reader = TarReader(io.BytesIO(tar))
                for entry in reader:
                    indexer.add(entry, reader.offset)
                index = indexer.finish(diff_id=diff_id, tar_size=len(tar))
        if index is not None:
            self.driver.publish(self.diff_ids, index, tar=path)
        else:
            self.driver.unpack(self.diff_ids, io.BytesIO(tar), self.new_folder())

    def view(self, **options: Any) -> Snapshot:
        """The merged tree of the layers."""
        with self.mounted(None) as root:
            return snapshot(root, **options)

    def layer_tree(self) -> Snapshot:
        """The topmost layer as it lies on disk."""
        root = self.driver.mounts(self.diff_ids, None)
        if not isinstance(root, OverlayMount):
            return snapshot(root.path)
        lowers = open_lowers(root.lowers[:1])
        try:
            return snapshot(lowers[0] if isinstance(lowers[0], str) else f"/proc/self/fd/{lowers[0]}")
        finally:
            close_lowers(lowers)


class Lab:
    """Makes stacks, and lends the suite its helpers."""

    snapshot = staticmethod(snapshot)
    whole_seconds = staticmethod(whole_seconds)

    def __init__(self, name: str, folder: str) -> None:
        self.name, _, form = name.partition("-")
        self.tarballs = form == "tarball"
        self.folder = folder
        self._count = 0
        self._pins: list[Pinned] = []

    def stack(self, name: str = "", *, tarballs: bool | None = None) -> Stack:
        self._count += 1
        folder = f"{self.folder}/stack-{self._count}"
        for sub in ("layers", "tmp", "blobs", "run"):
            os.makedirs(f"{folder}/{sub}")
        mounted = self.tarballs if tarballs is None else tarballs
        tars = Tars(f"{folder}/blobs", f"{folder}/run", "tarball") if mounted else None
        driver = open_driver(name or self.name, f"{folder}/layers", f"{folder}/tmp", tars=tars)
        self._pins.append(Pinned(f"{folder}/run/layers"))
        return Stack(driver, f"{folder}/tmp", f"{folder}/blobs")

    def rebuilt(self, other: Stack, name: str = "") -> Stack:
        """Another stack's layers unpacked from their tars."""
        stack = self.stack(name)
        for diff_id in other.diff_ids:
            stack.unpack(other.tars[diff_id], diff_id)
        return stack

    def clean(self) -> None:
        self.unpin()
        shutil.rmtree(self.folder)
        os.mkdir(self.folder)

    def unpin(self) -> None:
        """Let go of what is mounted."""
        for pin in self._pins:
            if not os.path.isdir(os.path.dirname(pin.directory)):
                continue
            with pin.lock():
                pin.unpin()


@pytest.fixture(params=["overlay2", "overlay2-tarball", "vfs"])
def lab(request: pytest.FixtureRequest, tmp_path: Any, mounts_tarballs: str) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("layers have owners, devices and mounts: the suite needs root")
    if request.param.endswith("tarball") and mounts_tarballs:
        pytest.skip(f"layers cannot be mounted from their tarballs: {mounts_tarballs}")
    folder = tmp_path / "lab"
    folder.mkdir()
    made = Lab(request.param, str(folder))
    yield made
    made.unpin()
