"""``--build-context``: names and what they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from minidock.build.sources.layout import Place, parse_place
from minidock.build.sources.named import DIRECTORY, IMAGE, LAYOUT, URL, Where, context_name, parse_contexts
from minidock.errors import UsageError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("src", "src"),
        ("SRC", "src"),
        ("alpine", "alpine"),
        ("alpine:latest", "alpine"),
        ("docker.io/library/alpine:latest", "alpine"),
        ("alpine:3", "alpine:3"),
        ("example.org/a/b:latest", "example.org/a/b"),
        ("../x", ""),
        ("-x", ""),
        ("", ""),
        ("a b", ""),
        ("\u212a", ""),
    ],
)
def test_names(text: str, name: str) -> None:
    assert context_name(text) == name


def test_kinds(tmp_path: Path) -> None:
    texts = [f"d={tmp_path}", "i=docker-image://busybox", "l=oci-layout:///x:y", "u=https://h/x=y", "d=git@h:r"]
    assert parse_contexts(texts) == {
        "d": Where(URL, "git@h:r", "git@h:r"),
        "i": Where(IMAGE, "busybox", "docker-image://busybox"),
        "l": Where(LAYOUT, "/x:y", "oci-layout:///x:y"),
        "u": Where(URL, "https://h/x=y", "https://h/x=y"),
    }
    assert parse_contexts([f"d={tmp_path}"])["d"].kind == DIRECTORY


@pytest.mark.parametrize("text", ["", "x", "=x", "x=", "scratch=/", "x=/nowhere", "x=docker-image://", "x=target:y"])
def test_refusals(text: str) -> None:
    with pytest.raises(UsageError, match="invalid --build-context"):
        parse_contexts([text])


def test_places(tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert parse_place(str(odd)) == Place(str(odd))
    assert parse_place(f"{odd}:c") == Place(str(odd), tag="c")
    assert parse_place(f"/x@{digest}") == Place("/x", digest=digest)
    assert parse_place("/x@y") == Place("/x@y")
    assert parse_place("/x:y/z") == Place("/x:y/z")
