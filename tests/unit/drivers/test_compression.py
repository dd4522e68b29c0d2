from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable

import pytest
import zstandard

from minidock.drivers import compression
from minidock.drivers.compression import Plain, is_archive
from minidock.errors import ArchiveError

FORMS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    return out.getvalue()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", [b"", b"abc", b"hello world" * 9999])
def test_every_form_is_read(form: str, data: bytes) -> None:
    stream = Plain(io.BytesIO(FORMS[form](data)))
    assert stream.read(3) == data[:3]
    assert stream.read(5) + stream.read() == data[3:]


@pytest.mark.parametrize("form", ["gzip", "bzip2", "xz"])
def test_members_follow_each_other(form: str) -> None:
    assert Plain(io.BytesIO(FORMS[form](b"one") + FORMS[form](b"two"))).read() == b"onetwo"


@pytest.mark.parametrize("form", ["gzip", "bzip2", "xz"])
def test_damage_is_an_archive_error(form: str) -> None:
    whole = FORMS[form](bytes(range(256)) * 100)
    for damaged in (whole[: len(whole) // 2], whole[:8] + b"\xff" * 40 + whole[48:], whole[:6] + b"rubbish" * 20):
        with pytest.raises(ArchiveError, match="compression is damaged"):
            Plain(io.BytesIO(damaged)).read()


def test_padding_between_xz_streams() -> None:
    stream = Plain(io.BytesIO(lzma.compress(b"one") + bytes(1 << 18) + lzma.compress(b"two") + bytes(8)))
    assert stream.read() == b"onetwo"
    assert stream.read(5) == b""


def test_xz_may_not_ask_for_any_amount_of_memory() -> None:
    greedy = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 << 20}]
    with pytest.raises(ArchiveError, match="compression is damaged: Memory usage limit exceeded"):
        Plain(io.BytesIO(lzma.compress(b"x", filters=greedy))).read()
    assert Plain(io.BytesIO(lzma.compress(b"x", preset=9 | lzma.PRESET_EXTREME))).read() == b"x"


def test_zstandard_frames_one_after_the_other() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    data = zstandard.compress(b"one" * 100_000) + skippable + zstandard.compress(b"two")
    stream = Plain(io.BytesIO(data))
    assert b"".join(iter(lambda: stream.read(999), b"")) == b"one" * 100_000 + b"two"
    assert Plain(io.BytesIO(data)).read() == b"one" * 100_000 + b"two"


@pytest.mark.parametrize("cut", [1, 5, 10])
def test_zstandard_that_ends_in_the_middle_of_a_frame(cut: int) -> None:
    """The library's own stream takes that for the end."""
    data = zstandard.compress(os.urandom(300_000))
    with pytest.raises(ArchiveError, match="compression is damaged: it ends too early"):
        Plain(io.BytesIO(data[:-cut])).read()


def test_zstandard_may_not_ask_for_any_amount_of_memory() -> None:
    greedy = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    data = zstandard.ZstdCompressor(compression_params=greedy).compressobj().compress(os.urandom(1 << 20))
    with pytest.raises(ArchiveError, match="too much memory"):
        Plain(io.BytesIO(data)).read()


@pytest.mark.parametrize("form", ["gzip", "bzip2", "xz", "zstd"])
def test_a_bomb_is_stopped(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_FREE", 1 << 20)
    stream = Plain(io.BytesIO(FORMS[form](bytes(40 << 20))))
    grown = 0
    with pytest.raises(ArchiveError, match="grows to more than 250 times"):  # noqa: PT012
        while data := stream.read(1 << 16):
            grown += len(data)
    assert grown <= 250 * (128 << 10) + (1 << 20)


@pytest.mark.parametrize("form", FORMS)
def test_archives_are_known_by_content(form: str) -> None:
    stream = io.BytesIO(FORMS[form](_tar()))
    assert is_archive(stream)
    assert stream.tell() == 0
    assert not is_archive(io.BytesIO(FORMS[form](b"#!/bin/sh\n" * 100)))
    assert not is_archive(io.BytesIO(FORMS[form](bytes(2048))))


def test_what_is_no_archive() -> None:
    for data in (b"", b"x", b"\x1f\x8b", b"\x28\xb5\x2f\xfd" * 200, b"\x1f\x8b" + b"x" * 600):
        assert not is_archive(io.BytesIO(data))


def test_errors_of_the_stream_itself_pass() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 5:
                raise OSError(5, "Input/output error")
            return super().read(size)

    stream = Plain(Broken(gzip.compress(b"x" * 100)))
    with pytest.raises(OSError, match="Input/output error"):
        stream.read()


def test_a_stream_in_small_pieces() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 1))

    stream = Plain(Slow(gzip.compress(b"abc")))
    assert b"".join(iter(lambda: stream.read(2), b"")) == b"abc"
