from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from minidock.errors import ArchiveError


def _written(*entries: Entry) -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out)
    for entry in entries:
        writer.add(entry)
    writer.finish()
    return out.getvalue()


def _file(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


_component = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda text: text not in {".", ".."})
_name = st.lists(_component, min_size=1, max_size=12).map("/".join)
_xattrs = st.dictionaries(
    st.text("abcdefghij.=", min_size=1, max_size=20).map(lambda text: "user." + text.replace("=", "")),
    st.binary(max_size=60),
    max_size=3,
)


@st.composite
def _entries(draw: Any) -> Entry:
    kind = draw(st.sampled_from([LINK, SYMLINK, CHAR_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO, REGULAR]))
    device = kind in {CHAR_DEVICE, BLOCK_DEVICE}
    return Entry(
        name=draw(_name),
        type=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 0xFFFFFFFE)),
        gid=draw(st.integers(0, 0xFFFFFFFE)),
        mtime=draw(st.integers(-(1 << 31), (1 << 34) - 1)),
        linkname=draw(_name) if kind in {LINK, SYMLINK} else "",
        major=draw(st.integers(0, 4095)) if device else 0,
        minor=draw(st.integers(0, (1 << 20) - 1)) if device else 0,
        xattrs=draw(_xattrs),
    )


@settings(max_examples=300, deadline=None)
@given(entries=st.lists(_entries(), max_size=4))
def test_what_is_written_is_read_back(entries: list[Entry]) -> None:
    reader = TarReader(io.BytesIO(_written(*entries)))
    assert list(reader) == entries
    assert reader.ended


@settings(max_examples=100, deadline=None)
@given(entries=st.lists(_entries(), max_size=3))
def test_the_standard_library_reads_the_same(entries: list[Entry]) -> None:
    with tarfile.open(fileobj=io.BytesIO(_written(*entries)), errors="surrogateescape") as tar:
        members = tar.getmembers()
    assert [(m.name, m.type, m.mode, m.uid, m.gid, m.mtime, m.linkname) for m in members] == [
        (e.name, e.type, e.mode, e.uid, e.gid, e.mtime, e.linkname) for e in entries
    ]


def test_files_with_content_hash_and_size(tmp_path: Path) -> None:
    out = io.BytesIO()
    writer = TarWriter(out)
    contents = {"empty": b"", "odd": b"x" * 513, "block": b"y" * 512, "big": os.urandom(700_001)}
    for name, data in contents.items():
        fd = _file(tmp_path / name, data)
        writer.add_file(Entry(name, size=len(data), mtime=7), fd)
        os.close(fd)
    digest = writer.finish()
    tar = out.getvalue()
    assert digest == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert writer.size == len(tar)
    assert writer.entries == 4
    with tarfile.open(fileobj=io.BytesIO(tar)) as read:
        assert {m.name: read.extractfile(m).read() for m in read} == contents  # type: ignore[union-attr]


def test_content_of_many_buffers(tmp_path: Path) -> None:
    out = io.BytesIO()
    writer = TarWriter(out)
    contents = {str(size): os.urandom(size) for size in (5_000_001, 70_000, 1 << 21, 3, 2_100_000)}
    offsets = {}
    for number, (name, data) in enumerate(contents.items()):
        entry = Entry(name, size=len(data))
        fd = _file(tmp_path / name, data)
        offsets[name] = writer.add_bytes(entry, data) if number % 2 else writer.add_file(entry, fd)
        os.close(fd)
    digest = writer.finish()
    tar = out.getvalue()
    assert digest == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert writer.size == len(tar)
    with tarfile.open(fileobj=io.BytesIO(tar)) as read:
        assert {m.name: read.extractfile(m).read() for m in read} == contents  # type: ignore[union-attr]
        assert {m.name: m.offset_data for m in read} == offsets


def test_gnu_tar_agrees(tmp_path: Path) -> None:
    long = "/".join(["n" * 90] * 3)
    tar = _written(
        Entry("", DIRECTORY, 0o755, mtime=1_500_000_000),
        Entry("dir/" + "m" * 99, REGULAR, 0o4755, 1, 2, mtime=1_500_000_000),
        Entry(long, SYMLINK, 0o777, linkname="t" * 200, mtime=1_500_000_000),
        Entry("dev", CHAR_DEVICE, 0o620, 4_000_000, 5, mtime=1_500_000_000, major=5, minor=300),
        Entry("pipe", FIFO, 0o600, mtime=-5),
        Entry("hard", LINK, 0o644, mtime=1_500_000_000, linkname="dev"),
        Entry("caps", REGULAR, 0o644, mtime=1_500_000_000, xattrs={"user.k": b"v"}),
    )
    path = tmp_path / "out.tar"
    path.write_bytes(tar)
    command = ["tar", "--numeric-owner", "--xattrs", "--full-time", "-tvf", path]
    done = subprocess.run(command, capture_output=True, text=True, env={"TZ": "UTC", "PATH": os.environ["PATH"]})
    assert done.stderr == ""
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    when = "2017-07-14 02:40:00"
    assert (
        lines
        == [
            f"drwxr-xr-x 0/0 0 {when} ./",
            f"-rwsr-xr-x 1/2 0 {when} dir/{'m' * 99}",
            f"lrwxrwxrwx 0/0 0 {when} {long} -> {'t' * 200}",
            f"crw--w---- 4000000/5 5,300 {when} dev",
            "prw------- 0/0 0 1969-12-31 23:59:55 pipe",
            f"hrw-r--r-- 0/0 0 {when} hard link to dev",
            f"-rw-r--r--* 0/0 0 {when} caps",
        ]
        or lines[-1] == f"-rw-r--r-- 0/0 0 {when} caps"
    )


def test_a_long_name_is_split_where_ustar_can_hold_it() -> None:
    fits = "p" * 155 + "/" + "n" * 100
    assert len(_written(Entry(fits))) == 512 + 1024
    for name in ("p" * 156 + "/" + "n" * 100, "p" * 20 + "/" + "n" * 101, "n" * 120):
        assert len(_written(Entry(name))) == 3 * 512 + 1024
        assert next(iter(TarReader(io.BytesIO(_written(Entry(name)))))).name == name
    directory = "p" * 50 + "/" + "d" * 60
    assert next(iter(TarReader(io.BytesIO(_written(Entry(directory, DIRECTORY)))))).name == directory


def test_large_sizes_and_lengths_of_records() -> None:
    tar = _written(Entry("huge", size=1 << 34))
    with tarfile.open(fileobj=io.BytesIO(tar)) as read:
        assert read.next().size == 1 << 34  # type: ignore[union-attr]
    for length in range(80, 110):
        entry = Entry("x", xattrs={"user.k": b"v" * length})
        assert next(iter(TarReader(io.BytesIO(_written(entry))))) == entry


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("stated", [-1, 1])
def test_a_file_that_changes_meanwhile_is_an_error(tmp_path: Path, size: int, stated: int) -> None:
    fd = _file(tmp_path / "f", b"x" * size)
    writer = TarWriter(io.BytesIO())
    with pytest.raises(ArchiveError, match="changed while it was packed"):
        writer.add_file(Entry("f", size=size + stated), fd)
    os.close(fd)


def test_short_writes_are_finished() -> None:
    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data[:100])
            return min(len(data), 100)

    out = Slow()
    writer = TarWriter(out)  # type: ignore[arg-type]
    writer.add(Entry("x"))
    writer.finish()
    assert out.data == _written(Entry("x"))
