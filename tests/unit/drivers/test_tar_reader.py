from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidock.drivers.tar_format import DIRECTORY, LINK, REGULAR, SYMLINK, Entry, Limits
from minidock.drivers.tar_reader import TarReader
from minidock.errors import ArchiveError

END = bytes(1024)


def header(name: bytes = b"x", kind: bytes = b"0", *, size: bytes = b"00000000000\0", **fields: bytes) -> bytes:
    """A header block, byte for byte as asked, with a true checksum."""
    layout = {
        "name": (0, 100, name),
        "mode": (100, 8, b"0000644\0"),
        "uid": (108, 8, b"0000000\0"),
        "gid": (116, 8, b"0000000\0"),
        "size": (124, 12, size),
        "mtime": (136, 12, b"00000000000\0"),
        "kind": (156, 1, kind),
        "link": (157, 100, b""),
        "magic": (257, 8, b"ustar\x0000"),
        "major": (329, 8, b"0000000\0"),
        "minor": (337, 8, b"0000000\0"),
        "prefix": (345, 155, b""),
        "tail": (500, 12, b""),
    }
    block = bytearray(512)
    for key, (start, length, default) in layout.items():
        value = fields.get(key, default)
        assert len(value) <= length
        block[start : start + len(value)] = value
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def extension(kind: bytes, body: bytes) -> bytes:
    return header(b"ext", kind, size=b"%011o\0" % len(body)) + padded(body)


def record(key: bytes, value: bytes) -> bytes:
    size = len(key) + len(value) + 3
    while len(b"%d" % size) + len(key) + len(value) + 3 != size:
        size += 1
    return b"%d %b=%b\n" % (size, key, value)


def pax(**records: bytes) -> bytes:
    return extension(b"x", b"".join(record(k.replace("__", ".").encode(), v) for k, v in records.items()))


def read(data: bytes, **limits: int) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data), limits=Limits(**limits))
    return [(entry, b"".join(reader.data())) for entry in reader]


def one(data: bytes, **limits: int) -> Entry:
    ((entry, _),) = read(data + END, **limits)
    return entry


def test_plain_entries_and_their_data() -> None:
    stream = header(b"./a//b", size=b"00000000003 ") + padded(b"abc") + header(b"/d/", b"5", mode=b"040755 \0") + END
    (first, data), (second, _) = read(stream)
    assert first == Entry("a/b", REGULAR, 0o644, size=3)
    assert data == b"abc"
    assert second == Entry("d", DIRECTORY, 0o755)


def test_data_that_is_not_taken_is_skipped() -> None:
    stream = header(b"a", size=b"%011o\0" % 300_000) + padded(b"x" * 300_000) + header(b"b") + END
    assert [entry.name for entry in TarReader(io.BytesIO(stream))] == ["a", "b"]


def test_the_root_and_old_forms() -> None:
    assert one(header(b"./", b"5")).name == ""
    assert one(header(b"old/", b"\0", magic=b"")) == Entry("old", DIRECTORY, 0o644)
    assert one(header(b"old", b"\0", magic=b"", prefix=b"ignored")).type == REGULAR
    assert one(header(b"x", b"7")).type == REGULAR
    assert one(header(b"n", prefix=b"p")).name == "p/n"
    assert one(header(b"n", prefix=b"p", magic=b"ustar  \0")).name == "n"
    star = header(b"n", prefix=b"p".ljust(131, b"\0") + b"00000000001\0", tail=bytes(8) + b"tar\0")
    assert one(star).name == "p/n"


def test_base_256_numbers_and_signed_checksums() -> None:
    entry = one(header(uid=b"\x80\0\0\0\xff\xff\xff\x01", mtime=b"\xff" * 11 + b"\xfb"))
    assert (entry.uid, entry.mtime) == (0xFFFFFF01, -5)
    block = bytearray(header("é".encode()))
    unsigned = sum(block[:148]) + sum(block[156:]) + 256
    block[148:156] = b"%06o\0 " % (unsigned - 2 * 256)
    assert one(bytes(block)).name == "é"


def test_gnu_long_names() -> None:
    long, target = b"d/" * 200 + b"x", b"t" * 300
    stream = extension(b"L", long + b"\0") + extension(b"K", target + b"\0") + header(b"short", b"2", link=b"l")
    entry = one(stream)
    assert (entry.name, entry.linkname) == (long.decode(), target.decode())


def test_pax_overrides_are_last_wins() -> None:
    stream = extension(b"L", b"gnu\0") + pax(path=b"first") + pax(path=b"pax/name", linkpath=b"t", uid=b"4000000")
    entry = one(stream + header(b"ustar", b"2"))
    assert (entry.name, entry.linkname, entry.uid, entry.type) == ("pax/name", "t", 4_000_000, SYMLINK)
    body = record(b"path", b"one") + record(b"path", b"two")
    assert one(extension(b"x", body) + header()).name == "two"
    assert one(extension(b"x", record(b"path", b"one") + record(b"path", b"")) + header(b"own")).name == "own"


def test_pax_size_wins_over_the_header() -> None:
    stream = pax(size=b"3") + header(size=b"00000000001\0") + padded(b"abc") + header(b"next") + END
    (first, data), (second, _) = read(stream)
    assert (first.size, data, second.name) == (3, b"abc", "next")


@pytest.mark.parametrize(("text", "seconds"), [(b"5", 5), (b"5.999", 5), (b"-5", -5), (b"-5.0", -5), (b"-5.1", -6)])
def test_pax_times_are_rounded_down(text: bytes, seconds: int) -> None:
    assert one(pax(mtime=text) + header()).mtime == seconds


def test_global_records_hold_until_they_are_replaced() -> None:
    stream = extension(b"g", record(b"uid", b"7") + record(b"comment", b"c")) + header(b"a")
    stream += pax(uid=b"8") + header(b"b") + extension(b"g", record(b"uid", b"9")) + header(b"c") + END
    assert [entry.uid for entry, _ in read(stream)] == [7, 8, 9]


def test_extended_attributes_may_hold_anything() -> None:
    value = b"\0=\n\xff"
    entry = one(pax(SCHILY__xattr__user__k=value, LIBARCHIVE__xattr__user__k=b"x") + header())
    assert entry.xattrs == {"user.k": value}


def test_hard_links_have_no_data_whatever_they_say() -> None:
    stream = header(b"h", b"1", link=b"/a//b", size=b"00000000777\0") + header(b"next") + END
    (first, _), (second, _) = read(stream)
    assert (first.type, first.linkname, first.size, second.name) == (LINK, "a/b", 0, "next")


def test_the_end_is_told_from_a_stop() -> None:
    for data, ended in ((b"", False), (header(), False), (header() + bytes(512), True), (END + b"junk" * 999, True)):
        stream = io.BytesIO(data)
        reader = TarReader(stream)
        assert len(list(reader)) == bool(data.startswith(b"x"))
        assert reader.ended is ended
        assert stream.read() == b""


BAD = {
    "random": os.urandom(512),
    "checksum": header()[:-1] + b"x",
    "short header": header()[:100],
    "short data": header(size=b"00000001000\0") + b"abc",
    "no padding": header(size=b"00000000003\0") + b"abc",
    "octal": header(size=b"00000000009\0"),
    "underscores": header(size=b"0000_000001\0"),
    "sign": header(size=b"-0000000001\0"),
    "negative size": header(size=b"\xff" * 12),
    "huge size": header(size=b"\x80" + b"\xff" * 11),
    "empty name": header(b""),
    "dots": header(b"a/../b"),
    "root file": header(b"./"),
    "root link": header(b"h", b"1", link=b"/"),
    "empty target": header(b"s", b"2"),
    "empty hard link": header(b"s", b"1"),
    "uid -1": header(uid=b"\x80\0\0\0\xff\xff\xff\xff"),
    "type": header(kind=b"Z"),
    "device": header(kind=b"3", major=b"\x80\0\0\0\xff\xff\xff\xff"),
    "time": header(mtime=b"\x80" + b"\xff" * 11),
    "nul in path": pax(path=b"a\0b") + header(),
    "nul in target": pax(linkpath=b"a\0b") + header(kind=b"2"),
    "pax dots": pax(path=b"../x") + header(b"fine"),
    "pax name": pax(path=b"n" * 256) + header(b"fine"),
    "pax uid": pax(uid=b"1e3") + header(),
    "pax negative": pax(size=b"-1") + header(),
    "pax digits": pax(size=b"9" * 30) + header(),
    "pax time": pax(mtime=b"1.x") + header(),
    "pax no time": pax(mtime=b"-") + header(),
    "pax length": extension(b"x", b"99 a=b\n") + header(),
    "pax zero": extension(b"x", b"0 a=b\n") + header(),
    "pax no digits": extension(b"x", b"+6 a=b\n") + header(),
    "pax no newline": extension(b"x", b"6 a=bb") + header(),
    "pax no key": extension(b"x", b"5 =b\n") + header(),
    "pax no equals": extension(b"x", b"5 ab\n") + header(),
    "pax xattr": pax(SCHILY__xattr__=b"v") + header(),
    "pax alone": pax(path=b"a") + END,
    "pax at the end": pax(path=b"a"),
    "pax size": header(b"e", b"x", size=b"77777777777\0"),
    "long name size": header(b"e", b"L", size=b"\x80" + bytes(3) + b"\xff" * 8),
    "truncated pax": extension(b"x", record(b"path", b"y" * 600))[:600],
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_streams_are_refused(name: str) -> None:
    start = time.monotonic()
    with pytest.raises(ArchiveError):
        read(BAD[name])
    assert time.monotonic() - start < 5


def test_limits() -> None:
    with pytest.raises(ArchiveError, match="more than 3 entries"):
        read(header() * 4 + END, entries=3)
    with pytest.raises(ArchiveError, match="more than 3 entries"):
        read(pax(path=b"x") * 4, entries=3)
    with pytest.raises(ArchiveError, match="more than 10 bytes"):
        read((header(size=b"00000000006\0") + padded(b"abcdef")) * 2 + END, total=10)
    for texts in (header(b"n" * 6), header(b"n", b"2", link=b"target"), pax(SCHILY__xattr__u=b"123456") + header(b"n")):
        assert len(read(texts + END, texts=10)) == 1
        with pytest.raises(ArchiveError, match="more than 10 bytes of names and attributes"):
            read(texts * 2 + END, texts=10)
    comments = b"".join(record(b"k%d" % number, b"") for number in range(11_000))
    assert one(extension(b"g", comments + record(b"uid", b"7")) + header()).uid == 7
    records = b"".join(record(b"SCHILY.xattr.user.%d" % number, b"") for number in range(101))
    with pytest.raises(ArchiveError, match="too many global"):
        read(extension(b"g", records) + header())


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damage_is_an_archive_error_or_nothing(data: Any) -> None:
    stream = bytearray(
        pax(path=b"p/q", SCHILY__xattr__user__k=b"v") + header(size=b"00000000003\0") + padded(b"abc") + END
    )
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    del stream[data.draw(st.integers(0, len(stream))) :]
    try:
        entries = read(bytes(stream))
    except ArchiveError:
        return
    for entry, _ in entries:
        assert not entry.name.startswith("/")
        assert ".." not in entry.name.split("/")


def test_a_stream_in_small_pieces() -> None:
    class Slow(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.inner = io.BytesIO(data)

        def read(self, size: int = -1, /) -> bytes:
            return self.inner.read(min(size, 7))

    stream = pax(path=b"long") + header(size=b"00000001000\0") + padded(b"z" * 512) + header(b"n") + END
    reader = TarReader(Slow(stream))
    assert [(entry.name, b"".join(reader.data())) for entry in reader] == [("long", b"z" * 512), ("n", b"")]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_the_standard_library_writes(form: int, tmp_path: Path) -> None:
    names = ["a", "dir/" + "n" * 99, *([] if form == tarfile.USTAR_FORMAT else ["x" * 200, "ü" * 90])]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = 5, 12345
            tar.addfile(member, io.BytesIO(b"12345"))
    out.seek(0)
    reader = TarReader(out)
    target = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    found = []
    for entry in reader:
        found.append((entry.name, entry.size, entry.mtime))
        reader.copy_to(target, entry)
    os.close(target)
    assert found == [(name, 5, 12345) for name in names]
    assert (tmp_path / "f").read_bytes() == b"12345" * len(names)
