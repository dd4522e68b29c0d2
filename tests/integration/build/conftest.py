"""Builds through the builder itself, on the real store, storage drivers and runtime."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.build.builder import build
from minidock.build.forecast import forecast
from minidock.build.progress import PlainProgress, QuietProgress
from minidock.build.request import BuildRequest
from minidock.engine.build_steps import StepRunner
from minidock.errors import NoSuchImageError
from minidock.log import Log
from minidock.model.forecast import StepForecast
from minidock.model.oci import History, ImageConfig
from minidock.rootfs import Rootfs
from minidock.store.blobs import Blobs
from minidock.store.images import Image, Images
from minidock.store.layout import DataRoot
from minidock.store.staging import Staging


class Shop:
    """A data root with busybox in it, a context, and builds. ``out`` is the progress of the latest build."""

    def __init__(self, path: Path, busybox: bytes, open_rootfs: Callable[[DataRoot], Rootfs]) -> None:
        self.root = DataRoot(str(path / "root"), run=str(path / "run"))
        self.root.ensure()
        self.images = Images(self.root)
        self.rootfs = open_rootfs(self.root)
        self.context = path / "context"
        self.context.mkdir()
        self.out = ""
        config = ImageConfig.new(architecture="amd64")
        config.config["Cmd"] = ["sh"]
        config.raw["created"] = "2020-01-01T00:00:00Z"
        with Staging(self.root, "import") as staging:
            layer = self.rootfs.import_layer(io.BytesIO(busybox), staging)
            config.add_layer(layer.digest, History(created="2020-01-01T00:00:00Z", created_by="import"))
            self.images.commit(config, [layer], names=["busybox"])

    def pull(self, name: str) -> Image:
        raise NoSuchImageError(f"no such image: {name}")

    def build(self, text: str, **options: Any) -> Image:
        """Build ``text``; RUN has no network unless it is asked for."""
        stream = io.BytesIO()
        request = BuildRequest(str(self.context), text=text, **{"network": "none", **options})
        try:
            return build(
                request,
                root=self.root,
                images=self.images,
                rootfs=self.rootfs,
                open_run=lambda: StepRunner(self.root, Log()),
                pull=self.pull,
                progress=PlainProgress(stream.write),
            )
        finally:
            self.out = stream.getvalue().decode()

    def plan(self, text: str, **options: Any) -> tuple[StepForecast, ...]:
        """The forecast of ``build`` with the same arguments."""
        scratch = DataRoot(f"{self.root.path}-scratch", run=f"{self.root.run}-scratch")
        scratch.ensure()
        return forecast(
            BuildRequest(str(self.context), text=text, **{"network": "none", **options}),
            root=self.root,
            scratch=scratch,
            images=self.images,
            rootfs=self.rootfs,
            pull=self.pull,
            progress=QuietProgress(lambda _: None),
        )

    def misses(self) -> list[tuple[str, str]]:
        """The steps that the cache had not, without their numbers, each with one reason, if they were asked for."""
        titles: dict[str, str] = {}
        found = []
        for line in self.out.splitlines():
            number, _, rest = line.partition(" ")
            if rest.startswith("["):
                titles[number] = rest
            elif rest.startswith("miss: "):
                found.append((titles[number].partition("] ")[2], rest.removeprefix("miss: ")))
        return found

    def file(self, path: str, content: str | bytes = "x") -> Path:
        """A file of the context."""
        target = self.context / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def steps(self, ending: str) -> list[str]:
        """The titles of the steps that ended with ``CACHED`` or ``DONE``; internal ones left out."""
        titles: dict[str, str] = {}
        found = []
        for line in self.out.splitlines():
            number, _, rest = line.partition(" ")
            if rest.startswith("[") and not rest.startswith("[internal]"):
                titles[number] = rest
            elif rest.startswith(ending) and number in titles:
                found.append(titles[number])
        return found

    def said(self) -> list[str]:
        """What RUN steps printed, without number and time."""
        lines = [line.split(" ", 2) for line in self.out.splitlines()]
        said = [line[2] for line in lines if len(line) == 3 and line[1].replace(".", "").isdigit()]
        return [line for line in said if not line.startswith(("writing image", "naming to"))]

    def tree(self, image: Image, below: str = "") -> dict[str, tuple[str, int, int, int]]:
        """The image's files below a directory: type and content or target, mode, uid, gid, by path."""
        self.rootfs.ensure(image.config.diff_ids)
        found = {}
        with self.rootfs.open_root(image.config.diff_ids, None) as fd:
            top = f"/proc/self/fd/{fd}/{below}".rstrip("/")
            for directory, names, files in os.walk(top):
                for name in (*names, *files):
                    path = os.path.join(directory, name)
                    found[os.path.relpath(path, top)] = _shown(path)
        return found

    def content(self, image: Image, path: str) -> str:
        return self.tree(image, os.path.dirname(path))[os.path.basename(path)][0].partition(":")[2]

    def layer_names(self, image: Image, number: int = -1) -> list[str]:
        """What the tar of a layer holds."""
        with tarfile.open(Blobs(self.root).path(image.config.diff_ids[number])) as tar:
            return sorted(tar.getnames())


def _shown(path: str) -> tuple[str, int, int, int]:
    status = os.lstat(path)
    if os.path.islink(path):
        content = f"link:{os.readlink(path)}"
    elif os.path.isdir(path):
        content = "directory"
    else:
        content = (
            "file:" + Path(path).read_text("latin-1") if os.path.isfile(path) and status.st_size < 1 << 16 else "other"
        )
    return content, status.st_mode & 0o7777, status.st_uid, status.st_gid


def _readable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A temporary directory's mode is no root directory's."""
    member.mode |= 0o755 if member.isdir() else 0
    return member


@pytest.fixture(scope="session")
def busybox_tar(busybox_tree: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(busybox_tree, arcname=".", filter=_readable)
    return stream.getvalue()


@pytest.fixture(scope="session")
def shop_class() -> type[Shop]:
    """The class itself, for workshops of another life time."""
    return Shop


@pytest.fixture
def shop_of() -> type[Shop]:
    """The class itself, for tests that need several workshops."""
    return Shop


@pytest.fixture(params=["overlay2", "overlay2-tarball", "vfs"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, busybox_tar: bytes, open_storage: Any) -> Shop:
    """A workshop on each storage driver and form of layers."""
    return Shop(tmp_path, busybox_tar, lambda root: open_storage(root, request.param))


@pytest.fixture(params=["overlay2", "overlay2-tarball"])
def overlay_shop(request: pytest.FixtureRequest, tmp_path: Path, busybox_tar: bytes, open_storage: Any) -> Shop:
    """A workshop on overlay2, for what does not depend on the driver."""
    return Shop(tmp_path, busybox_tar, lambda root: open_storage(root, request.param))
