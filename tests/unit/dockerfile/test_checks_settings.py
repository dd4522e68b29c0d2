"""The ``check`` directive's value: which checks look, and whether what they find is an error."""

from __future__ import annotations

import pytest

from minidock.dockerfile.checks.settings import Settings, parse_settings
from minidock.errors import DockerfileError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Settings()),
        (" ; ", Settings()),
        ("skip=A", Settings(skip=frozenset(["A"]))),
        (" skip = A , B ; error = True ", Settings(skip=frozenset(["A", "B"]), error=True)),
        ("error=0;experimental=C", Settings(experimental=frozenset(["C"]))),
        ("skip=all;experimental=all;error=1", Settings(frozenset(["all"]), frozenset(["all"]), True)),
        ("error=true;error=false", Settings()),
    ],
)
def test_read(text: str, expected: Settings) -> None:
    assert parse_settings(text) == expected


@pytest.mark.parametrize("text", ["A", "skip", "error=", "error=yes", "skip=A;Error=true", "=x", "skips=A"])
def test_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match="invalid option"):
        parse_settings(text)


def test_who_looks() -> None:
    usual = Settings(skip=frozenset(["A"]))
    assert not usual.wants("A", experimental=False)
    assert usual.wants("B", experimental=False)
    assert not usual.wants("B", experimental=True)
    assert not Settings(skip=frozenset(["all"])).wants("B", experimental=False)
    named = Settings(skip=frozenset(["all", "C"]), experimental=frozenset(["C"]))
    assert named.wants("C", experimental=True), "an experimental check is not skipped, it is only not asked for"
    assert not named.wants("D", experimental=True)
    assert not named.nothing
    assert Settings(skip=frozenset(["all"])).nothing
    assert not usual.nothing
