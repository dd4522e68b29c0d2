from __future__ import annotations

import pytest

from minidock.drivers.whiteouts import deleted_name, is_marker
from minidock.errors import ArchiveError


@pytest.mark.parametrize(
    ("name", "victim"),
    [
        (".wh.a", "a"),
        ("d/e/.wh.a", "d/e/a"),
        (".wh.a.wh.b", "a.wh.b"),
        (".wh..hidden", ".hidden"),
        (".wh..wh.aufs", None),
        (".wh..wh.plnk/17.42", None),
        ("d/.wh..wh.orph", None),
    ],
)
def test_what_a_marker_deletes(name: str, victim: str | None) -> None:
    assert is_marker(name)
    assert deleted_name(name) == victim


@pytest.mark.parametrize(
    "name", [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh.b/c", ".wh.a/.wh.b", ".wh.a/.wh..wh..opq"]
)
def test_markers_without_a_meaning(name: str) -> None:
    with pytest.raises(ArchiveError, match="meaningless whiteout"):
        deleted_name(name)


@pytest.mark.parametrize("name", ["a", "wh.a", "a.wh.b", "d/a.wh.", ".whx"])
def test_other_names_are_no_markers(name: str) -> None:
    assert not is_marker(name)
