from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from minidock.drivers.tar_format import Entry, Limits
from minidock.drivers.tar_reader import TarReader
from minidock.errors import ArchiveError

FORMS = {
    "old": ["--format=gnu"],
    "0.0": ["--format=pax", "--sparse-version=0.0"],
    "0.1": ["--format=pax", "--sparse-version=0.1"],
    "1.0": ["--format=pax", "--sparse-version=1.0"],
}


def _sparse_file(path: Path, *, runs: int) -> bytes:
    content = bytearray(runs * 131072 + 5000)
    with open(path, "wb") as file:
        for run in range(runs):
            data = f"run {run}".encode() * 100
            file.seek(run * 131072 + 65536)
            file.write(data)
            content[run * 131072 + 65536 : run * 131072 + 65536 + len(data)] = data
        file.truncate(len(content))
    return bytes(content)


def _tarred(path: Path, options: list[str]) -> bytes:
    return subprocess.run(
        ["tar", "-C", path.parent, "--sparse", *options, "-cf", "-", path.name, "after"],
        capture_output=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("runs", [0, 1, 3, 40])
def test_gnu_tars_sparse_files(tmp_path: Path, form: str, runs: int) -> None:
    content = _sparse_file(tmp_path / "holes", runs=runs)
    (tmp_path / "after").write_bytes(b"after")
    reader = TarReader(io.BytesIO(_tarred(tmp_path / "holes", FORMS[form])))
    found: dict[str, bytes] = {}
    for entry in reader:
        fd = os.open(tmp_path / f"out-{entry.name}", os.O_WRONLY | os.O_CREAT)
        reader.copy_to(fd, entry)
        os.close(fd)
        found[entry.name] = (tmp_path / f"out-{entry.name}").read_bytes()
        if entry.name == "holes":
            assert entry.segments is not None
            assert entry.size == len(content)
    assert found == {"holes": content, "after": b"after"}
    assert os.stat(tmp_path / "out-holes").st_blocks <= os.stat(tmp_path / "holes").st_blocks


def _record(text: str) -> bytes:
    size = len(text) + 2
    while len(str(size)) + len(text) + 2 != size:
        size += 1
    return f"{size} {text}\n".encode()


def _block(kind: bytes, size: int, *, sparse: bytes = b"") -> bytes:
    block = bytearray(512)
    block[:1] = b"f"
    block[100:108] = b"0000644\0"
    block[124:136] = b"%011o\0" % size
    block[156:157] = kind
    block[257:265] = b"ustar  \0" if sparse else b"ustar\x0000"
    block[386 : 386 + len(sparse)] = sparse
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax(*records: str, data: bytes = b"") -> bytes:
    body = b"".join(_record(text) for text in records)
    return _block(b"x", len(body)) + body + bytes(-len(body) % 512) + _block(b"0", len(data)) + data


def _struct(offset: int, length: int) -> bytes:
    return b"%011o\0%011o\0" % (offset, length)


def _old(size: int, *runs: tuple[int, int], extended: int = 0) -> bytes:
    sparse = b"".join(_struct(*run) for run in runs).ljust(96, b"\0") + bytes([extended]) + b"%011o\0" % size
    return _block(b"S", sum(length for _, length in runs), sparse=sparse)


BAD = {
    "runs overlap": _pax("GNU.sparse.size=1000", "GNU.sparse.map=0,10,5,10", data=b"x" * 20),
    "run beyond the end": _pax("GNU.sparse.size=10", "GNU.sparse.map=5,10", data=b"x" * 10),
    "odd map": _pax("GNU.sparse.size=10", "GNU.sparse.map=5", data=b""),
    "no number": _pax("GNU.sparse.size=10", "GNU.sparse.map=a,b", data=b""),
    "lengths differ": _pax("GNU.sparse.size=1000", "GNU.sparse.map=0,10", data=b"x" * 20),
    "unpaired": _pax("GNU.sparse.size=10", "GNU.sparse.offset=1", data=b""),
    "8 EiB": _pax("GNU.sparse.size=9223372036854775808", "GNU.sparse.map="),
    "beyond the limit": _pax("GNU.sparse.size=9223372036854775807", "GNU.sparse.map="),
    "unknown form": _pax("GNU.sparse.major=2", "GNU.sparse.minor=0", "GNU.sparse.realsize=5"),
    "no map in 1.0": _pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=5", data=b""),
    "endless line": _pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=5", data=b"1" * 2048),
    "too many": _pax(
        "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=5", data=b"99999999\n".ljust(512, b"0")
    ),
    "too many in a record": _pax("GNU.sparse.size=100", "GNU.sparse.map=" + ",".join("0" for _ in range(500))),
    "old: overlap": _old(100, (50, 10), (0, 10)) + bytes(512),
    "old: negative": _block(b"S", 0, sparse=(_struct(1, 1)[:12] + b"\xff" * 12).ljust(97, b"\0") + b"00000000144\0"),
    "old: endless": _old(100, extended=1) + (_struct(0, 0)[:-2] + b"\0\0" + _struct(1, 0) * 20 + b"\1" + bytes(7)) * 50,
    "old: cut": _old(100, extended=1),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_maps_are_refused(name: str) -> None:
    with pytest.raises(ArchiveError):
        list(TarReader(io.BytesIO(BAD[name]), limits=Limits(segments=100)))


def test_a_name_of_its_own_and_empty_runs() -> None:
    stream = _pax("path=GNUSparseFile.1/f", "GNU.sparse.name=true/name", "GNU.sparse.size=9", "GNU.sparse.map=3,0,9,0")
    assert list(TarReader(io.BytesIO(stream))) == [Entry("true/name", size=9, segments=())]
