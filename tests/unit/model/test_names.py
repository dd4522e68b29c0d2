"""Names of containers and volumes."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidock.errors import InvalidReferenceError, MinidockError
from minidock.model.names import check_name

# The machine may be busy: how long an example takes says nothing.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", ["ab", "A0", "0_", "volume_1", "a.b-c", "a" * 255])
def test_names(name: str) -> None:
    assert check_name(name, kind="volume") == name


@pytest.mark.parametrize("name", ["", "a", "_a", ".a", "-a", "a b", "a/b", "..", "a\n", "ab\n", "\u00e9a", "a" * 256])
def test_no_names(name: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        check_name(name, kind="container")
    assert caught.value.message == f"invalid container name {name!r}"
    assert caught.value.hint
    assert caught.value.exit_status == 125


@given(st.text(st.characters(codec="ascii"), max_size=6))
@CALM
def test_a_name_is_a_safe_file_name(name: str) -> None:
    try:
        check_name(name, kind="volume")
    except MinidockError:
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]+", name)
    assert name not in (".", "..")
