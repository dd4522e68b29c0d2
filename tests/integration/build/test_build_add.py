"""ADD of archives, with the real command."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


def archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        entry = tarfile.TarInfo("inner/file")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    return stream.getvalue()


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_an_archive_is_known_by_its_content(minidock: Any, tmp_path: Path, kind: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nADD thing /d/\nCOPY thing /copied\n")
    (tmp_path / "thing").write_bytes(COMPRESSIONS[kind](archive()))
    minidock.build(tmp_path, "-t", "it")
    assert minidock.out("run", "--rm", "--network", "none", "it", "cat", "/d/inner/file") == "hello"
    size = minidock.out("run", "--rm", "--network", "none", "it", "stat", "-c", "%s", "/copied")
    assert int(size) == (tmp_path / "thing").stat().st_size
