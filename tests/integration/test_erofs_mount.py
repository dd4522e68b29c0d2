"""Indexes as the kernel sees them: a layer mounted from its tar is the tree that unpacking the tar makes."""

from __future__ import annotations

import os
import random
import re
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from minidock.drivers import erofs_reader, erofs_writer, index_file
from minidock.drivers.nodes import Node, whiteout
from minidock.drivers.tar_format import (
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    FIFO,
    LINK,
    REGULAR,
    SYMLINK,
    Entry,
)
from minidock.drivers.tar_reader import TarReader
from minidock.drivers.tar_writer import TarWriter
from minidock.drivers.unpack import unpack_layer
from minidock.kernel import mount

DIFF_ID = "sha256:" + "0123456789abcdef" * 4
_TYPES = {
    REGULAR: stat.S_IFREG,
    DIRECTORY: stat.S_IFDIR,
    SYMLINK: stat.S_IFLNK,
    CHAR_DEVICE: stat.S_IFCHR,
    BLOCK_DEVICE: stat.S_IFBLK,
    FIFO: stat.S_IFIFO,
}
Content = list[tuple[Entry, bytes]]


def _acl(*, mask: int) -> bytes:
    """An access control list: owner rwx, user 1000 r-x, group r-x, ``mask``, others r-x."""
    entries = [(0x01, 7, 0xFFFFFFFF), (0x02, 5, 1000), (0x04, 5, 0xFFFFFFFF), (0x10, mask, 0xFFFFFFFF)]
    entries.append((0x20, 5, 0xFFFFFFFF))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)


class Layer:
    """A layer's tar and index in ``folder``."""

    def __init__(self, folder: Path, content: Content) -> None:
        folder.mkdir()
        self.tar = folder / "layer.tar"
        self.index = folder / "layer.idx"
        self.root = Node(stat.S_IFDIR | 0o755)
        with self.tar.open("wb") as out:
            writer = TarWriter(out)
            nodes = {"": self.root}
            for entry, data in content:
                _add(nodes, entry, _written(writer, entry, data))
            writer.finish()
        size = self.tar.stat().st_size
        self.image = erofs_writer.build(self.root, tar_size=size)
        self.index.write_bytes(index_file.seal(self.image, diff_id=DIFF_ID, tar_size=size, self_contained=True))

    @contextmanager
    def mounted(self) -> Iterator[str]:
        """A path that leads to the layer mounted from its tar, in no namespace."""
        with _opened(mount.new_mount("erofs", [("device", str(self.tar))], source=str(self.index))) as path:
            yield path

    def tree(self, folder: Path) -> str:
        """The layer as a tree on the disk, made call by call."""
        folder.mkdir()
        _make(self.root, str(folder), self.tar.read_bytes())
        return str(folder)


def _make(root: Node, folder: str, tar: bytes) -> None:
    made: dict[Node, str] = {}
    pending = [(root, folder)]
    for node, path in pending:
        if node in made:
            os.link(made[node], path, follow_symlinks=False)
            continue
        made[node] = path
        kind = stat.S_IFMT(node.mode)
        if kind == stat.S_IFDIR:
            if path != folder:
                os.mkdir(path)
            pending += [(child, f"{path}/{os.fsdecode(name)}") for name, child in (node.children or {}).items()]
        elif kind == stat.S_IFREG:
            Path(path).write_bytes(tar[node.offset : node.offset + node.size])
        elif kind == stat.S_IFLNK:
            os.symlink(node.target, path)
        else:
            os.mknod(path, kind, node.rdev)
    for node, path in reversed(made.items()):
        os.chown(path, node.uid, node.gid, follow_symlinks=False)
        if not stat.S_ISLNK(node.mode):
            os.chmod(path, node.mode & 0o7777)
        marks = {"trusted.overlay.opaque": b"y"} if node.opaque else {}
        for name, value in {**node.xattrs, **marks}.items():
            os.setxattr(path, name, value, follow_symlinks=False)
        os.utime(path, ns=(node.mtime * 10**9, node.mtime * 10**9), follow_symlinks=False)


@contextmanager
def _opened(fd: int) -> Iterator[str]:
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _written(writer: TarWriter, entry: Entry, data: bytes) -> int:
    if entry.type == REGULAR:
        return writer.add_bytes(entry, data)
    writer.add(entry)
    return 0


def _add(nodes: dict[str, Node], entry: Entry, offset: int) -> None:
    """One well-formed entry of the tar in the tree of nodes, whose paths ``nodes`` holds."""
    directory, _, base = entry.name.rpartition("/")
    children = nodes[directory].children
    assert children is not None
    if base == ".wh..wh..opq":
        nodes[directory].opaque = True
    elif base.startswith(".wh."):
        children[os.fsencode(base[4:])] = whiteout()
    elif entry.type == LINK:
        nodes[entry.name] = children[os.fsencode(base)] = nodes[entry.linkname]
    elif not entry.name:
        root = nodes[""]
        root.mode, root.uid, root.gid, root.mtime = stat.S_IFDIR | entry.mode, entry.uid, entry.gid, entry.mtime
        root.xattrs = entry.xattrs
    else:
        nodes[entry.name] = children[os.fsencode(base)] = Node(
            _TYPES[entry.type] | (0o777 if entry.type == SYMLINK else entry.mode),
            entry.uid,
            entry.gid,
            entry.mtime,
            size=entry.size,
            offset=offset if entry.size else 0,
            target=os.fsencode(entry.linkname),
            rdev=os.makedev(entry.major, entry.minor),
            xattrs=entry.xattrs,
        )


def random_layer(seed: int, *, count: int = 120, marks: bool = False) -> Content:
    """The entries of a tar that holds every kind, parents first."""
    rnd = random.Random(seed)
    content: Content = [(Entry("", DIRECTORY, rnd.choice([0o755, 0o1777]), mtime=5), b"")]
    directories, files, names = [""], [], {""}
    for number in range(count):
        parent = rnd.choice(directories)
        base = rnd.choice([f"n{number}", f"-{number}", f".{number}", f"é{number}", f"{number}".rjust(245, "x")])
        name = f"{parent}/{base}" if parent else base
        if len(name) > 3000 or name in names:
            continue
        names.add(name)
        kind = rnd.choice([REGULAR, REGULAR, DIRECTORY, SYMLINK, CHAR_DEVICE, BLOCK_DEVICE, FIFO, LINK])
        if kind == LINK:
            if files:
                content.append((Entry(name, LINK, linkname=rnd.choice(files)), b""))
            continue
        data = rnd.randbytes(rnd.choice([0, 1, 511, 512, 513, 5000, 70_000])) if kind == REGULAR else b""
        entry = Entry(
            name,
            kind,
            rnd.choice([0o644, 0o755, 0o4711, 0o1777, 0]) if kind != SYMLINK else 0o777,
            rnd.choice([0, 33, 70_000, 0xFFFF_FFFE]),
            rnd.choice([0, 33, 70_000]),
            len(data),
            rnd.choice([0, 1, 1_700_000_000, (1 << 32) + 5, -5]),
            linkname="t" * rnd.choice([1, 60, 300, 448, 449, 500, 511, 512, 513, 1800, 4095])
            if kind == SYMLINK
            else "",
            major=rnd.choice([1, 259, 4095]) if kind in {CHAR_DEVICE, BLOCK_DEVICE} else 0,
            minor=rnd.choice([0, 3, 256, 0xFFFFF]) if kind in {CHAR_DEVICE, BLOCK_DEVICE} else 0,
            xattrs=_random_xattrs(rnd, kind),
        )
        content.append((entry, data))
        if kind == DIRECTORY:
            directories.append(name)
            if marks and rnd.random() < 0.3:
                content.append((Entry(f"{name}/.wh..wh..opq", REGULAR), b""))
        elif kind == REGULAR:
            files.append(name)
        if marks and rnd.random() < 0.2:
            content.append((Entry(f"{parent}/.wh.gone{number}".lstrip("/"), REGULAR), b""))
    return content


def _random_xattrs(rnd: random.Random, kind: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    if rnd.random() < 0.3:
        found["trusted.t"] = rnd.randbytes(rnd.choice([0, 1, 300, 900]))
    if kind in {REGULAR, DIRECTORY} and rnd.random() < 0.3:
        found["user." + "u" * rnd.choice([1, 200])] = rnd.randbytes(rnd.choice([0, 3, 200]))
    if kind == REGULAR and rnd.random() < 0.3:
        found["security.capability"] = CAPABILITY
    if kind == DIRECTORY and rnd.random() < 0.3:
        found["system.posix_acl_default"] = _acl(mask=rnd.choice([0, 7]))
    return found


def snapshot(root: str) -> dict[str, Any]:
    """Everything that stat, readlink, xattrs and content tell of a tree, by path, but directories' sizes."""
    found: dict[str, Any] = {}
    groups: dict[tuple[int, int], str] = {}
    pending = [""]
    while pending:
        path = pending.pop()
        full = f"{root}/{path}" if path else f"{root}/."
        try:
            status = os.lstat(full)
        except FileNotFoundError:
            # Overlayfs lists a deletion in a directory that only one layer has, but nothing can be found there.
            found[path] = "listed"
            continue
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFCHR and not status.st_rdev:
            found[path] = "whiteout"
            continue
        content: object = None
        if kind == stat.S_IFREG:
            content = Path(full).read_bytes()
        elif kind == stat.S_IFLNK:
            content = os.readlink(full)
        elif kind == stat.S_IFDIR:
            names = sorted(os.listdir(full), reverse=True)
            pending += [f"{path}/{name}" if path else name for name in names]
            content = names
        device = status.st_rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0
        found[path] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            device,
            status.st_nlink,
            0 if kind == stat.S_IFDIR else status.st_size,
            content,
            {
                name: os.getxattr(full, name, follow_symlinks=False)
                for name in sorted(os.listxattr(full, follow_symlinks=False))
            },
            groups.setdefault((status.st_dev, status.st_ino), path),
        )
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_mounted_layer_is_the_tree(tmp_path: Path, seed: int) -> None:
    layer = Layer(tmp_path / "layer", random_layer(seed, marks=True))
    expected = snapshot(layer.tree(tmp_path / "tree"))
    with layer.mounted() as mounted:
        assert snapshot(mounted) == expected


def _stacked(lowers: list[str], *more: tuple[str, str | None]) -> int:
    """A detached overlay of ``lowers``, topmost first."""
    return mount.new_mount("overlay", [*(("lowerdir+", path) for path in lowers), *more], source="overlay")


@pytest.mark.parametrize("seed", range(6))
def test_layers_stack_as_trees_do(tmp_path: Path, seed: int) -> None:
    """Deletions and opaque directories hide the same things of the layers beneath."""
    contents = [random_layer(seed, marks=True), *_changes(seed)]
    layers = [Layer(tmp_path / f"layer{number}", content) for number, content in enumerate(contents)]
    trees = [layer.tree(tmp_path / f"tree{number}") for number, layer in enumerate(layers)]
    with ExitStack() as stack:
        mounted = [stack.enter_context(layer.mounted()) for layer in layers]
        expected = stack.enter_context(_opened(_stacked(trees[::-1])))
        found = stack.enter_context(_opened(_stacked(mounted[::-1])))
        assert snapshot(found) == snapshot(expected)
        assert "whiteout" not in snapshot(found).values()


def _changes(seed: int) -> list[Content]:
    """Two layers that delete, hide and replace what ``random_layer(seed)`` has, each name at most once."""
    rnd = random.Random(seed)
    paths = [(entry.name, entry.type) for entry, _ in random_layer(seed) if entry.name]
    layers: list[Content] = []
    for _ in range(2):
        content: Content = [(Entry("", DIRECTORY, 0o755), b"")]
        made = {""}
        for path, kind in rnd.sample(paths, 20):
            directory, _, base = path.rpartition("/")
            if any(name == path or name.startswith(f"{path}/") for name in made):
                continue
            parts = directory.split("/") if directory else []
            parents = ["/".join(parts[: count + 1]) for count in range(len(parts))]
            if any((parent, DIRECTORY) not in paths or parent in made - _directories(content) for parent in parents):
                continue
            content += [(Entry(parent, DIRECTORY, 0o755, mtime=9), b"") for parent in parents if parent not in made]
            made.update(parents)
            choice = rnd.randrange(3)
            if choice == 0 and f"{directory}/.wh.{base}".lstrip("/") not in made:
                content.append((Entry(f"{directory}/.wh.{base}".lstrip("/"), REGULAR), b""))
            elif choice == 1 and kind == DIRECTORY:
                content.append((Entry(path, DIRECTORY, 0o700), b""))
                content.append((Entry(f"{path}/.wh..wh..opq", REGULAR), b""))
                content.append((Entry(f"{path}/fresh", REGULAR, size=3), b"new"))
            else:
                content.append((Entry(path, REGULAR, size=8), b"replaced"))
            made.add(path)
        layers.append(content)
    return layers


def _directories(content: Content) -> set[str]:
    return {entry.name for entry, _ in content if entry.type == DIRECTORY}


def test_debians_base_image_is_what_unpacking_makes(tmp_path: Path, debian_tar: Path) -> None:
    nodes = {"": Node(stat.S_IFDIR | 0o755)}
    with debian_tar.open("rb") as stream:
        reader = TarReader(stream)
        for entry in reader:
            _add(nodes, entry, reader.offset)
    size = debian_tar.stat().st_size
    image = erofs_writer.build(nodes[""], tar_size=size)
    assert erofs_writer.build(erofs_reader.read(image, tar_size=size), tar_size=size) == image
    (tmp_path / "idx").write_bytes(image)
    tree = tmp_path / "tree"
    tree.mkdir()
    with _opened(os.open(tree, os.O_RDONLY | os.O_DIRECTORY)) as path, debian_tar.open("rb") as stream:
        unpack_layer(TarReader(stream), int(path.rpartition("/")[2]), None)
    with _opened(mount.new_mount("erofs", [("device", str(debian_tar))], source=str(tmp_path / "idx"))) as mounted:
        assert snapshot(mounted) == snapshot(str(tree))


def test_large_directories_long_names_and_deep_trees(tmp_path: Path) -> None:
    content: Content = [(Entry("many", DIRECTORY, 0o755), b"")]
    content += [(Entry(f"many/{number}", REGULAR, size=number % 2), b"x" * (number % 2)) for number in range(5000)]
    content += [(Entry("long", DIRECTORY, 0o755), b"")]
    content += [(Entry(f"long/{number}".ljust(260, "n"), FIFO), b"") for number in range(40)]
    deep = ""
    for _ in range(1500):
        deep = f"{deep}/d" if deep else "d"
        content.append((Entry(deep, DIRECTORY, 0o755), b""))
    layer = Layer(tmp_path / "layer", content)
    with layer.mounted() as mounted:
        names = os.listdir(f"{mounted}/many")
        assert len(names) == 5000
        assert set(names) == {str(number) for number in range(5000)}
        assert all(os.stat(f"{mounted}/many/{name}").st_size == int(name) % 2 for name in names)
        for missing in ("", "!", "-1", "2500x", "49999", "zzz"):
            assert not os.path.exists(f"{mounted}/many/{missing}") or not missing
        assert sorted(os.listdir(f"{mounted}/long")) == sorted(f"{number}".ljust(255, "n") for number in range(40))
        assert os.stat(f"{mounted}/{deep}").st_nlink == 2
        assert os.stat(f"{mounted}/{deep}/..").st_nlink == 3


def test_large_extended_attributes(tmp_path: Path) -> None:
    """More than ext4 holds, across many blocks of the index."""
    xattrs = {f"trusted.{number}": os.urandom(size) for number, size in enumerate([0, 500, 512, 60_000, 65_535])}
    layer = Layer(tmp_path / "layer", [(Entry("f", REGULAR, size=2, xattrs=xattrs), b"ok")])
    with layer.mounted() as mounted:
        assert {name: os.getxattr(f"{mounted}/f", name) for name in os.listxattr(f"{mounted}/f")} == xattrs
        assert Path(f"{mounted}/f").read_bytes() == b"ok"


def test_a_huge_file_in_a_sparse_tar(tmp_path: Path) -> None:
    size = 20 << 30
    marks = {0: b"begin", (4 << 30) - 3: b"across", (16 << 30) + 12345: b"far", size - 3: b"end"}
    tar = tmp_path / "tar"
    offset = 5 << 30
    with tar.open("wb") as file:
        file.truncate(offset + size + (-size % 512))
        for position, data in marks.items():
            file.seek(offset + position)
            file.write(data)
    root = Node(stat.S_IFDIR | 0o755)
    root.children = {b"huge": Node(stat.S_IFREG | 0o644, size=size, offset=offset)}
    index = tmp_path / "idx"
    index.write_bytes(erofs_writer.build(root, tar_size=tar.stat().st_size))
    opened = _opened(mount.new_mount("erofs", [("device", str(tar))], source=str(index)))
    with opened as mounted, open(f"{mounted}/huge", "rb") as huge:
        assert os.fstat(huge.fileno()).st_size == size
        for position, data in marks.items():
            huge.seek(position)
            assert huge.read(len(data)) == data
        assert os.pread(huge.fileno(), 10, size - 3) == b"end"


@pytest.mark.parametrize("with_uuid", [True, False])
def test_a_copied_up_file_keeps_its_inode_number_at_the_next_mount(tmp_path: Path, with_uuid: bool) -> None:
    """What the UUID of a sealed index is for: overlayfs finds the lower file again by it."""
    layers = [Layer(tmp_path / name, [(Entry(name, REGULAR, size=2), b"ok")]) for name in ("f", "g")]
    if not with_uuid:
        for layer in layers:
            layer.index.write_bytes(layer.image)
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    directories = [("upperdir", str(tmp_path / "upper")), ("workdir", str(tmp_path / "work")), ("xino", "on")]
    numbers = []
    for _ in range(2):
        with ExitStack() as stack:
            lowers = [stack.enter_context(layer.mounted()) for layer in layers]
            path = stack.enter_context(_opened(_stacked(lowers, *directories)))
            numbers.append(os.stat(f"{path}/f").st_ino)
            os.chmod(f"{path}/f", 0o600)
            numbers.append(os.stat(f"{path}/f").st_ino)
    assert (len(set(numbers)) == 1) == with_uuid


def _fsck() -> str:
    """A fsck.erofs that knows images whose content is in another device; skips without."""
    program = shutil.which("fsck.erofs")
    if not program:
        pytest.skip("fsck.erofs is not installed (erofs-utils 1.8 or newer)")
    text = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    version = re.search(r"(\d+)\.(\d+)", text)
    if not version or tuple(map(int, version.groups())) < (1, 8):
        pytest.skip(f"fsck.erofs is older than 1.8: {text.strip()!r}")
    return program


@pytest.mark.parametrize("seed", range(4))
def test_fsck_agrees(tmp_path: Path, seed: int) -> None:
    program = _fsck()
    layer = Layer(tmp_path / "layer", random_layer(seed, marks=True))
    command = [program, "--extract", f"--device={layer.tar}", str(layer.index)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
