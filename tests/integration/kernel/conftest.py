"""What the tests of the kernel wrappers share: they need root, and most run in namespaces of their own."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minidock.drivers import erofs_writer
from minidock.drivers.erofs_format import with_uuid
from minidock.drivers.nodes import Node
from minidock.kernel import erofs, mount, namespaces, process

InNamespaces = Callable[..., Any]


class Image(NamedTuple):
    """An EROFS index and the file with the content: the image holds one file, ``content``."""

    meta: str
    tar: str

    def mount(self) -> int:
        return erofs.mount(self.meta, self.tar)


MakeImage = Callable[[Path, bytes], Image]


@pytest.fixture(autouse=True)
def _root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and namespaces")


@pytest.fixture
def in_namespaces() -> InNamespaces:
    """``in_namespaces(function, flags)``: its result, as JSON, from a child with new namespaces.

    A mount namespace (always made) is private all the way. An assertion that fails there fails here.
    """

    def run(function: Callable[[], object], flags: int = 0) -> object:
        reader, writer = os.pipe2(os.O_CLOEXEC)

        def child() -> None:
            try:
                mount.mount("", "/", "", mount.MS_REC | mount.MS_PRIVATE)
                answer = [True, function()]
            except BaseException:
                answer = [False, traceback.format_exc()]
            os.write(writer, json.dumps(answer).encode())

        with process.spawn(child, flags=flags | namespaces.CLONE_NEWNS) as spawned, os.fdopen(reader, "rb") as stream:
            os.close(writer)
            data = stream.read()
            code = spawned.wait()
        assert data, f"the child ended with {code} and no answer"
        good, value = json.loads(data)
        assert good, value
        return value

    return run


def _mounts(folder: Path) -> list[str]:
    """The mount table of the tests, without what others than this test have pinned meanwhile."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(folder) in line or not line.endswith(("nsfs rw", "size=1024k,mode=700"))]


@pytest.fixture
def mount_table(tmp_path: Path) -> Iterator[None]:
    """Fails a test that leaves something in the mount namespace of the tests."""
    before = _mounts(tmp_path)
    yield
    assert _mounts(tmp_path) == before


@pytest.fixture
def make_image() -> MakeImage:
    """``make_image(folder, content)``: an EROFS image in the folder, which is made."""

    def make(folder: Path, content: bytes) -> Image:
        root = Node(stat.S_IFDIR | 0o755)
        assert root.children is not None
        root.children[b"content"] = Node(stat.S_IFREG | 0o644, size=len(content))
        size = -(-len(content) // 512) * 512
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tar").write_bytes(content.ljust(size, b"\0"))
        image = erofs_writer.build(root, tar_size=size)
        (folder / "index").write_bytes(b"".join(with_uuid(image, hashlib.md5(content).digest())))
        return Image(str(folder / "index"), str(folder / "tar"))

    return make


@pytest.fixture(scope="session")
def _file_backed_mounts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Why this kernel cannot mount an EROFS image from a file; "" when it can."""
    if os.geteuid() != 0:
        return "needs root: mounts"
    folder = tmp_path_factory.mktemp("probe")
    root = Node(stat.S_IFDIR | 0o755)
    (folder / "tar").write_bytes(bytes(512))
    (folder / "index").write_bytes(erofs_writer.build(root, tar_size=512))
    try:
        os.close(erofs.mount(str(folder / "index"), str(folder / "tar")))
    except OSError as error:
        return f"Linux {os.uname().release} mounts no EROFS image from a file: {error.strerror}"
    return ""


@pytest.fixture
def file_backed_mounts(_file_backed_mounts: str) -> None:
    """Skips where the kernel mounts no EROFS image from a file (Linux 6.12)."""
    if _file_backed_mounts:
        pytest.skip(_file_backed_mounts)
