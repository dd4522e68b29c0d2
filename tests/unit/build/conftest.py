"""A build without mounts: layers are plain trees that a stand-in for the root file systems copies."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minidock.build.builder import build
from minidock.build.request import BuildRequest
from minidock.errors import NoSuchImageError
from minidock.model.digest import digest_of
from minidock.model.oci import LAYER_TAR, Descriptor, ImageConfig
from minidock.model.steps import RootMount, TreeMount
from minidock.store.blobs import Blobs
from minidock.store.images import Image, Images
from minidock.store.layout import DataRoot


def listing(tree: Path) -> dict[str, str]:
    """Every path of a tree with its mode and content."""
    found = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_text("latin-1") if path.is_file() else ""
        found[str(path.relative_to(tree))] = f"{status.st_mode:o} {content}"
    return found


class PlainRootfs:
    """Whole trees by their diff IDs. What a layer holds is the text of all paths that differ from those below."""

    def __init__(self, root: DataRoot, directory: Path) -> None:
        self.blobs = Blobs(root)
        self.directory = directory

    def tree(self, diff_ids: Sequence[str]) -> Path:
        path = self.directory / hashlib.sha256(" ".join(diff_ids).encode()).hexdigest()
        if not diff_ids:
            path.mkdir(parents=True, exist_ok=True)
        return path

    def ensure(self, diff_ids: Sequence[str]) -> None:
        assert self.tree(diff_ids).is_dir()

    def prepare(self, diff_ids: Sequence[str], writable: str) -> None:
        shutil.copytree(self.tree(diff_ids), f"{writable}/tree", symlinks=True)

    def mounts(self, diff_ids: Sequence[str], writable: str | None) -> RootMount:
        return TreeMount(str(self.tree(diff_ids)), True) if writable is None else TreeMount(f"{writable}/tree")

    @contextmanager
    def open_root(self, diff_ids: Sequence[str], writable: str | None) -> Iterator[int]:
        mount = self.mounts(diff_ids, writable)
        assert isinstance(mount, TreeMount)
        fd = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def compose(self, *_: object, **__: object) -> Iterator[None]:
        """As a driver that knows writable layers only."""
        yield None

    def commit(
        self,
        diff_ids: Sequence[str],
        writable: str,
        staging: Any,
        *,
        stubs: Collection[str] = (),
        dating: object = None,  # noqa: ARG002 - the real one's signature
        store: Callable[[str, str], None],
    ) -> Descriptor | None:
        tree = Path(writable) / "tree"
        for stub in stubs:
            (tree / stub.lstrip("/")).unlink()
        before, after = listing(self.tree(diff_ids)), listing(tree)
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        if not changed:
            return None
        data = repr([(path, after.get(path)) for path in changed]).encode()
        digest = digest_of(data)
        staging.lean_on([digest])
        path = Path(staging.path) / digest[7:]
        path.write_bytes(data)
        store(str(path), digest)
        target = self.tree([*diff_ids, digest])
        if not target.exists():
            tree.rename(target)
        return Descriptor(LAYER_TAR, digest, len(data))


class Ended(NamedTuple):
    status: int
    stubs: tuple[str, ...] = ()


class Spy:
    """A progress that keeps what it is told, and a RUN that does what its shell text says in a few words."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.runs: list[dict[str, Any]] = []

    def step(self, title: str) -> SpyStep:
        return SpyStep(self, title)

    def tick(self) -> None:
        return

    def warning(self, message: str) -> None:
        self.lines.append(f"warning: {message}")

    def run(self, *, root: RootMount, on_output: Callable[[bytes], None], **how: Any) -> Ended:
        """``write PATH TEXT``, ``say TEXT``, ``stub PATH`` or ``fail``; anything else does nothing."""
        assert isinstance(root, TreeMount)
        self.runs.append(how)
        word, _, rest = how["args"][-1].partition(" ")
        if word == "write":
            path, _, text = rest.partition(" ")
            (Path(root.path) / path.lstrip("/")).write_text(text)
        elif word == "interrupt":
            raise KeyboardInterrupt
        elif word == "say":
            on_output(rest.encode() + b"\n")
        elif word == "stub":
            (Path(root.path) / rest.lstrip("/")).touch()
            return Ended(0, (rest,))
        return Ended(3 if word == "fail" else 0)

    def ends(self, ending: str) -> list[str]:
        """The titles of steps that ended so."""
        return [line.removeprefix(f"{ending} ") for line in self.lines if line.startswith(f"{ending} ")]


class SpyStep:
    def __init__(self, spy: Spy, title: str) -> None:
        self.spy, self.title = spy, title

    def output(self, data: bytes) -> None:
        self.spy.lines.append(f"output {data.decode().strip()}")

    def copied(self, count: int) -> None:
        self.spy.lines.append(f"copied {count}")

    def done(self) -> None:
        self.spy.lines.append(f"done {self.title}")

    def cached(self) -> None:
        self.spy.lines.append(f"cached {self.title}")

    def canceled(self) -> None:
        self.spy.lines.append(f"canceled {self.title}")

    def error(self, message: str) -> None:
        self.spy.lines.append(f"error {self.title}: {message}")


class Workshop:
    """A data root, a context and builds in them. ``spy`` is the latest build's."""

    def __init__(self, path: Path) -> None:
        self.root = DataRoot(str(path / "root"), run=str(path / "run"))
        self.root.ensure()
        self.images = Images(self.root)
        self.rootfs: Any = PlainRootfs(self.root, path / "trees")
        self.context = path / "context"
        self.context.mkdir()
        self.spy = Spy()
        self.pulled: list[str] = []

    def pull(self, name: str) -> Image:
        self.pulled.append(name)
        raise NoSuchImageError(f"no such image: {name}")

    def base(self, name: str, files: dict[str, str], **config: Any) -> Image:
        """An image of one layer with these files."""
        tree = self.rootfs.directory / "new"
        tree.mkdir(parents=True)
        for path, text in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        data = repr(sorted(listing(tree).items())).encode()
        digest = Blobs(self.root).put(data)
        tree.rename(self.rootfs.tree([digest]))
        image = ImageConfig.new(architecture="amd64")
        image.config.update(config)
        image.raw["rootfs"]["diff_ids"] = [digest]
        image.raw["history"] = [{"created": "2020-01-01T00:00:00Z", "created_by": "import"}]
        image.raw["created"] = "2020-01-01T00:00:00Z"
        return self.images.commit(image, [Descriptor(LAYER_TAR, digest, len(data))], names=[name])

    def build(self, text: str, **options: Any) -> Image:
        self.spy = Spy()
        return build(
            BuildRequest(str(self.context), text=text, **options),
            root=self.root,
            images=self.images,
            rootfs=self.rootfs,
            open_run=lambda: nullcontext(self.spy.run),
            pull=self.pull,
            progress=self.spy,
        )

    def files(self, image: Image) -> dict[str, str]:
        """The image's files with their content."""
        tree = self.rootfs.tree(image.config.diff_ids)
        return {str(p.relative_to(tree)): p.read_text() for p in sorted(tree.rglob("*")) if p.is_file()}


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)
