"""A layer composed entry by entry is the one that the packer makes of the same tree."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.drivers.compose import Composer
from minidock.drivers.indexer import Indexer
from minidock.drivers.pack import pack
from minidock.drivers.packed import Packed
from minidock.drivers.tar_reader import TarReader
from minidock.errors import ArchiveError

DIRECTORY = stat.S_IFDIR | 0o755
FILE = stat.S_IFREG | 0o644
ROOT: dict[str, Any] = {"uid": 0, "gid": 0, "mtime": 0}


def compose(path: Path, write: Callable[[Composer], None]) -> Packed:
    with path.open("xb", buffering=0) as out:
        composer = Composer(out, -1, Indexer(None))
        write(composer)
        return composer.finish()


def make_tree(root: Path) -> None:
    (root / "d/sub").mkdir(parents=True)
    (root / "d/file").write_bytes(b"content")
    (root / "d/sub/empty").touch()
    (root / "d/sub/large").write_bytes(os.urandom(3_000_001))
    os.symlink("t" * 200, root / "d/long link")
    os.link(root / "d/file", root / "d/sub/hard link")
    os.mkfifo(root / "fifo", 0o640)
    for number in range(300):
        (root / f"d/f{number}").write_bytes(os.urandom(number * 40))
    for directory, names, files in os.walk(root, topdown=False):
        for name in (*names, *files):
            os.utime(os.path.join(directory, name), (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    os.utime(root, (1_500_000_000, 1_500_000_000))


def compose_tree(composer: Composer, root: Path, *, held: bool) -> None:
    """Give every entry of a tree in the packer's order."""
    links: dict[int, str] = {}

    def add(path: Path) -> None:
        name, status = str(path.relative_to(root)).removeprefix("."), path.lstat()
        how = {"uid": status.st_uid, "gid": status.st_gid, "mtime": int(status.st_mtime), "mode": status.st_mode}
        first = links.setdefault(status.st_ino, name)
        if path.is_dir() and not path.is_symlink():
            composer.add(name, **how)
            for child in sorted(os.listdir(os.fsencode(path))):
                add(path / os.fsdecode(child))
        elif first != name:
            composer.add(name, **how, link_to=first)
        elif stat.S_ISREG(status.st_mode):
            if held:
                composer.add_file(name, **how, size=status.st_size, source=memoryview(path.read_bytes()))
            else:
                with path.open("rb") as file:
                    composer.add_file(name, **how, size=status.st_size, source=file.fileno())
        else:
            composer.add(name, **how, target=os.readlink(path) if path.is_symlink() else "")

    add(root)


@pytest.mark.parametrize("held", [False, True])
def test_composed_is_packed(tmp_path: Path, held: bool) -> None:
    root = tmp_path / "root"
    make_tree(root)
    composed = compose(tmp_path / "tar", lambda composer: compose_tree(composer, root, held=held))
    out = io.BytesIO()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        packed = pack(fd, -1, out, copied=False)
    finally:
        os.close(fd)
    data = (tmp_path / "tar").read_bytes()
    assert data == out.getvalue()
    assert composed.diff_id == packed.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert (composed.size, composed.entries, composed.empty) == (len(data), packed.entries, False)
    assert composed.sealed is not None
    assert composed.problem == ""


def test_large_files_pass_through_the_buffers(tmp_path: Path) -> None:
    """Larger than all buffers, and than what is written out along the way."""
    data = os.urandom(1 << 20)
    (tmp_path / "source").write_bytes(data * 20 + b"end")
    sizes = {"a": (20 << 20) + 3, "b": 0, "c": (1 << 20) - 512, "d": 1 << 20, "e": (1 << 20) + 1}

    def write(composer: Composer) -> None:
        composer.add("", mode=DIRECTORY, **ROOT)
        with (tmp_path / "source").open("rb") as file:
            composer.add_file("a", mode=FILE, **ROOT, size=sizes["a"], source=file.fileno())
        for name in "bcde":
            composer.add_file(name, mode=FILE, **ROOT, size=sizes[name], source=(data + b"x")[: sizes[name]])

    packed = compose(tmp_path / "tar", write)
    assert packed.diff_id == f"sha256:{hashlib.sha256((tmp_path / 'tar').read_bytes()).hexdigest()}"
    with tarfile.open(tmp_path / "tar") as tar:
        for name, size in sizes.items():
            member = tar.extractfile(name)
            assert member is not None
            whole = (tmp_path / "source").read_bytes() if name == "a" else (data + b"x")[:size]
            assert member.read() == whole


def test_nothing_is_empty(tmp_path: Path) -> None:
    packed = compose(tmp_path / "tar", lambda _: None)
    assert packed.empty
    assert packed.entries == 0
    assert packed.sealed is None
    assert packed.size == (tmp_path / "tar").stat().st_size


def test_attributes_that_belong_to_no_layer_are_left_out(tmp_path: Path) -> None:
    given = {"user.one": b"1", "trusted.overlay.opaque": b"y", "user.overlay.x": b"x", "security.selinux": b"s"}

    def write(composer: Composer) -> None:
        composer.add("", mode=DIRECTORY, **ROOT, xattrs=given)
        composer.add_file("f", mode=FILE, **ROOT, size=0, source=b"", xattrs=given)

    compose(tmp_path / "tar", write)
    with (tmp_path / "tar").open("rb") as file:
        assert [entry.xattrs for entry in TarReader(file)] == [{"user.one": b"1"}] * 2


def test_devices(tmp_path: Path) -> None:
    def write(composer: Composer) -> None:
        composer.add("", mode=DIRECTORY, **ROOT)
        composer.add("b", mode=stat.S_IFBLK | 0o600, **ROOT, rdev=os.makedev(7, 300))
        composer.add("c", mode=stat.S_IFCHR | 0o666, **ROOT, rdev=os.makedev(1, 3))

    compose(tmp_path / "tar", write)
    with (tmp_path / "tar").open("rb") as file:
        assert [(entry.type, entry.major, entry.minor) for entry in TarReader(file)] == [
            (b"5", 0, 0),
            (b"4", 7, 300),
            (b"3", 1, 3),
        ]


@pytest.mark.parametrize(
    ("path", "mode", "problem"),
    [
        (".wh.x", FILE, "mark deletions"),
        ("d/.wh.x", FILE, "mark deletions"),
        ("d/.wh.x", DIRECTORY, "mark deletions"),
        ("/".join(["d" * 200] * 21), FILE, "its path is too long"),
        ("null", stat.S_IFCHR | 0o666, "it marks a deletion"),
    ],
)
def test_what_no_layer_can_hold(tmp_path: Path, path: str, mode: int, problem: str) -> None:
    def write(composer: Composer) -> None:
        if stat.S_ISREG(mode):
            composer.add_file(path, mode=mode, **ROOT, size=0, source=b"")
        else:
            composer.add(path, mode=mode, **ROOT)

    with pytest.raises(ArchiveError, match=problem):
        compose(tmp_path / "tar", write)


def test_names_that_only_look_like_marks(tmp_path: Path) -> None:
    def write(composer: Composer) -> None:
        composer.add("", mode=DIRECTORY, **ROOT)
        composer.add_file("a.wh.x", mode=FILE, **ROOT, size=0, source=b"")

    assert compose(tmp_path / "tar", write).entries == 2


@pytest.mark.parametrize("size", [6, 8, 5_000_000])
def test_a_source_of_another_size(tmp_path: Path, size: int) -> None:
    (tmp_path / "source").write_bytes(b"x" * 7)

    def write(composer: Composer) -> None:
        with (tmp_path / "source").open("rb") as file:
            composer.add_file("f", mode=FILE, **ROOT, size=size, source=file.fileno())

    with pytest.raises(ArchiveError, match="changed while it was packed"):
        compose(tmp_path / "tar", write)


def test_what_no_index_can_express_is_a_layer_all_the_same(tmp_path: Path) -> None:
    """A link to a file of a layer beneath: the tar says so, and has to be unpacked."""

    def write(composer: Composer) -> None:
        composer.add("", mode=DIRECTORY, **ROOT)
        composer.add("link", mode=FILE, **ROOT, link_to="elsewhere")

    (tmp_path / "below").mkdir()
    (tmp_path / "below/elsewhere").touch()
    below = os.open(tmp_path / "below", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with (tmp_path / "tar").open("xb", buffering=0) as out:
            composer = Composer(out, below, Indexer(lambda: below))
            write(composer)
            packed = composer.finish()
    finally:
        os.close(below)
    assert packed.sealed is None
    assert packed.problem
    assert packed.entries == 2
