"""Removal of trees never enters what is mounted in them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidock.store import files


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A tree with a tmpfs in it that holds a file."""
    point = tmp_path / "tree" / "a" / "point"
    point.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    try:
        (point / "kept").write_text("")
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_mount_in_a_tree_stops_its_removal_and_stays_whole(tmp_path: Path, mounted: Path) -> None:
    (tmp_path / "tree" / "a" / "file").write_text("")
    with pytest.raises(OSError, match="something is mounted here") as caught:
        files.remove_tree(str(tmp_path / "tree"))
    assert caught.value.filename == str(mounted)
    assert (mounted / "kept").exists()
