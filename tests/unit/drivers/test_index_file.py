"""The file around an index: what was sealed is loaded, and any change of it is found."""

from __future__ import annotations

import random
import stat
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from minidock.drivers.erofs_reader import read
from minidock.drivers.erofs_writer import build
from minidock.drivers.index_file import Header, load, peek, seal
from minidock.drivers.nodes import Node
from minidock.errors import CorruptObjectError, InvalidReferenceError

DIFF_ID = "sha256:" + "0123456789abcdef" * 4
OTHER_ID = "sha256:" + "f" * 64
IMAGE = build(Node(stat.S_IFDIR | 0o755), tar_size=10240)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sealed index on the disk."""
    path = tmp_path / "layer.idx"
    path.write_bytes(seal(IMAGE, diff_id=DIFF_ID, tar_size=10240, self_contained=True))
    return path


def _refused(path: Path, match: str = "the layer index", *, diff_id: str = DIFF_ID, tar_size: int = 10240) -> None:
    with pytest.raises(CorruptObjectError, match=match) as caught:
        load(str(path), diff_id=diff_id, tar_size=tar_size)
    assert str(path) in str(caught.value)


def test_what_was_sealed_is_loaded(path: Path) -> None:
    header = Header(self_contained=True, image_size=len(IMAGE))
    assert load(str(path), diff_id=DIFF_ID, tar_size=10240) == header
    assert peek(str(path)) == header
    path.write_bytes(seal(IMAGE, diff_id=DIFF_ID, tar_size=10240, self_contained=False))
    assert not load(str(path), diff_id=DIFF_ID, tar_size=10240).self_contained
    assert not peek(str(path)).self_contained


@pytest.mark.parametrize(("version", "flags"), [(2, 1), (1, 2), (1, 3)])
def test_a_trailer_of_another_version_is_refused(path: Path, version: int, flags: int) -> None:
    """One that a newer minidock wrote, with a checksum that is right."""
    data = bytearray(path.read_bytes())
    assert struct.unpack_from("<II", data, len(data) - 504) == (1, 1)
    struct.pack_into("<II", data, len(data) - 504, version, flags)
    struct.pack_into("<I", data, len(data) - 4, zlib.crc32(data[-512:-4]))
    path.write_bytes(data)
    _refused(path, "is of the unknown version")
    with pytest.raises(CorruptObjectError, match="is of the unknown version"):
        peek(str(path))


def test_an_image_of_any_length_is_padded(path: Path) -> None:
    image = IMAGE + b"x" * 100
    data = seal(image, diff_id=DIFF_ID, tar_size=10240, self_contained=True)
    assert len(data) % 512 == 0
    path.write_bytes(data)
    assert load(str(path), diff_id=DIFF_ID, tar_size=10240).image_size == len(image)


def test_the_image_is_a_readable_index_with_a_uuid_of_its_own(path: Path) -> None:
    image = path.read_bytes()[: len(IMAGE)]
    assert stat.S_ISDIR(read(image, tar_size=10240).mode)
    larger = build(Node(stat.S_IFDIR | 0o700), tar_size=10240)
    uuids = {
        seal(content, diff_id=diff_id, tar_size=10240, self_contained=True)[1072:1088]
        for content in (IMAGE, larger)
        for diff_id in (DIFF_ID, OTHER_ID)
    }
    assert len(uuids) == 4
    assert image[1072:1088] in uuids


def test_sealing_is_deterministic() -> None:
    files = {seal(IMAGE, diff_id=DIFF_ID, tar_size=10240, self_contained=True) for _ in range(3)}
    assert len(files) == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "none.idx"), diff_id=DIFF_ID, tar_size=0)
    with pytest.raises(FileNotFoundError):
        peek(str(tmp_path / "none.idx"))


def test_another_layers_index_is_refused(path: Path) -> None:
    _refused(path, "belongs to another layer", diff_id=OTHER_ID)
    _refused(path, "belongs to another layer", diff_id=DIFF_ID.removeprefix("sha256:"))
    _refused(path, "belongs to another layer", tar_size=10241)


@pytest.mark.parametrize("diff_id", ["", "0" * 64, "sha256:" + "0" * 63, "sha256:" + "G" * 64])
def test_only_a_digest_is_sealed(diff_id: str) -> None:
    with pytest.raises(InvalidReferenceError):
        seal(IMAGE, diff_id=diff_id, tar_size=0, self_contained=True)


def test_every_changed_bit_is_found(path: Path) -> None:
    data = path.read_bytes()
    rnd = random.Random(1)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << rnd.randrange(8)
        path.write_bytes(changed)
        _refused(path)


def test_every_cut_and_every_insertion_is_found(path: Path) -> None:
    data = path.read_bytes()
    rnd = random.Random(1)
    for size in range(len(data)):
        path.write_bytes(data[:size])
        _refused(path)
    for _ in range(500):
        position = rnd.randrange(len(data) + 1)
        path.write_bytes(data[:position] + rnd.randbytes(rnd.choice([1, 2, 512])) + data[position:])
        _refused(path)


def test_the_trailer_alone_is_checked_by_peek(path: Path) -> None:
    data = path.read_bytes()
    for position in range(len(data) - 512, len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(CorruptObjectError, match=r"layer\.idx"):
            peek(str(path))
    path.write_bytes(data[:-512])
    with pytest.raises(CorruptObjectError, match="no valid trailer"):
        peek(str(path))


def test_loading_needs_no_openssl() -> None:
    """The way of ``run``: hashlib alone would take a third of the interpreter's own start."""
    code = (
        "import sys, minidock.drivers.index_file; print(sorted({'hashlib', '_hashlib', 'ctypes'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
