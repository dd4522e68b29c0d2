"""Reading files: every byte is hashed, small files are held as far as memory is allowed for them."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from minidock.build.contents import Contents

SMALL = 1000


def read(path: Path, contents: Contents, size: int) -> memoryview | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return contents.read(fd, size)
    finally:
        os.close(fd)


@pytest.mark.parametrize("hold", [0, 999, 5_000, 1 << 30])
@pytest.mark.parametrize("block", [4_000, 1 << 21])
@pytest.mark.parametrize("seed", range(5))
def test_every_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: int, block: int, seed: int) -> None:
    monkeypatch.setattr("minidock.build.contents._BLOCK", block)
    random_ = random.Random(seed)
    sizes = [random_.choice([0, 1, 10, 500, 999, SMALL, SMALL + 1, 3_999, 4_000, 50_000]) for _ in range(60)]
    small = sum(size for size in sizes if size <= SMALL)
    contents, expected = Contents(small=SMALL, hold=hold), hashlib.sha256()
    held: list[tuple[memoryview, bytes]] = []
    for number, size in enumerate(sizes):
        path, data = tmp_path / str(number), random_.randbytes(size)
        path.write_bytes(data)
        expected.update(data)
        view = read(path, contents, size)
        if view is not None:
            assert size <= SMALL
            held.append((view, data))
    assert contents.digest() == expected.digest()
    assert all(view == data for view, data in held), "what is held is never overwritten"
    assert sum(len(view) for view, _ in held) <= hold
    if hold > small * 2 and block > small:
        assert len(held) == sum(size <= SMALL for size in sizes)


@pytest.mark.parametrize("size", [1, 10, SMALL, SMALL + 1, 100_000])
@pytest.mark.parametrize("hold", [0, 1 << 20])
@pytest.mark.parametrize("difference", [-1, 1])
def test_other_sizes_are_told(tmp_path: Path, size: int, hold: int, difference: int) -> None:
    (tmp_path / "f").write_bytes(bytes(size + difference))
    contents = Contents(small=SMALL, hold=hold)
    with pytest.raises(EOFError):
        read(tmp_path / "f", contents, size)
