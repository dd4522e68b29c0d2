"""Which Dockerfile is read, and how its bytes are taken."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import DockerfileError, MinidockError, UsageError

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="a build makes files root's; without root that is refused")


def label(shop: Any, **options: Any) -> str:
    return str(shop.build(None, **options).config.config["Labels"]["v"])


def test_the_upper_case_name_counts_before_the_lower_case_one(shop: Any) -> None:
    with pytest.raises(UsageError, match="there is no Dockerfile in"):
        shop.build(None)
    (shop.context / "dockerfile").write_text("FROM scratch\nLABEL v=lower\n")
    assert label(shop) == "lower"
    (shop.context / "Dockerfile").write_text("FROM scratch\nLABEL v=upper\n")
    assert label(shop) == "upper"


def test_a_file_may_lie_elsewhere(shop: Any, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("FROM scratch\nLABEL v=other\n")
    (shop.context / "Dockerfile").write_text("FROM scratch\nLABEL v=own\n")
    assert label(shop, dockerfile=str(tmp_path / "other")) == "other"


def test_a_byte_order_mark_and_line_ends_of_another_system(shop: Any) -> None:
    text = "\ufeff# escape=`\r\nFROM scratch\r\nLABEL v=a`\r\n  # gone\r\nb\r\nENV last=1\r\n"
    (shop.context / "Dockerfile").write_bytes(text.encode())
    assert label(shop) == "ab"
    assert "last=1" in shop.build(None).config.config["Env"]


def test_an_ignored_dockerfile_and_ignore_file_are_used_all_the_same(shop: Any) -> None:
    (shop.context / "Dockerfile").write_text("FROM scratch\nLABEL v=1\nCOPY . /\n")
    (shop.context / ".dockerignore").write_text("Dockerfile\n.dockerignore\nleft\n")
    (shop.context / "left").write_text("")
    (shop.context / "kept").write_text("K")
    assert label(shop) == "1"
    assert shop.files(shop.build(None)) == {"kept": "K"}


def test_the_ignore_file_beside_the_dockerfile_counts_before_the_contexts(shop: Any) -> None:
    (shop.context / "My").write_text("FROM scratch\nCOPY . /\n")
    (shop.context / "My.dockerignore").write_text("a\nMy*\n.dockerignore\n")
    (shop.context / ".dockerignore").write_text("b\n")
    (shop.context / "a").write_text("A")
    (shop.context / "b").write_text("B")
    assert shop.files(shop.build(None, dockerfile=str(shop.context / "My"))) == {"b": "B"}


def test_what_cannot_be_read_ends_its_step_in_the_progress(shop: Any) -> None:
    with pytest.raises(DockerfileError, match="unknown instruction"):
        shop.build("FROM scratch\nTELEPORT x\n")
    (last,) = shop.spy.lines
    assert last.startswith("error [internal] load build definition from Dockerfile: ")
    assert "unknown instruction" in last
    (shop.context / ".dockerignore").write_text("[\n")
    with pytest.raises(MinidockError):
        shop.build("FROM scratch\n")
    assert shop.spy.lines[-1].startswith("error [internal] load .dockerignore: ")
