"""ARG, from ``--build-arg`` to what a stage sees: scopes, inheritance, and what is there without being declared."""

from __future__ import annotations

import os
from typing import Any

import pytest

from minidock.build.arguments import Arguments, global_arguments, host_platform
from minidock.build.request import BuildRequest
from minidock.dockerfile.parser import parse
from minidock.errors import DockerfileError, NoSuchImageError

root_only = pytest.mark.skipif(os.getuid() != 0, reason="a build makes files root's; without root that is refused")


def scope(text: str, *given: tuple[str, str], **options: Any) -> dict[str, str]:
    """What FROM sees, the automatic arguments left out."""
    found = global_arguments(BuildRequest(".", build_args=given, **options), parse(text)).scope
    return {name: value for name, value in found.items() if name not in Arguments(()).scope}


def test_a_given_value_counts_before_the_default() -> None:
    text = 'ARG A=1 B="two words" C\nARG D=$A$B\nFROM x\n'
    assert scope(text) == {"A": "1", "B": "two words", "D": "1two words"}
    assert scope(text, ("A", "9"), ("C", "3")) == {"A": "9", "B": "two words", "C": "3", "D": "9two words"}


def test_a_default_that_is_not_needed_is_not_expanded() -> None:
    text = 'ARG A="${B:?give B}"\nFROM x\n'
    with pytest.raises(DockerfileError, match="B: give B") as caught:
        scope(text)
    assert caught.value.line == 1
    assert scope(text, ("A", "1")) == {"A": "1"}


def test_the_automatic_arguments() -> None:
    found = global_arguments(BuildRequest("."), parse("FROM x AS a\nFROM y AS last\n")).scope
    system, architecture, *_ = host_platform().split("/")
    for side in ("TARGET", "BUILD"):
        assert found[f"{side}PLATFORM"] == host_platform()
        assert (found[f"{side}OS"], found[f"{side}ARCH"]) == (system, architecture)
        assert {f"{side}VARIANT", f"{side}OSVERSION"} <= found.keys()


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("FROM x AS a\nFROM y AS last\n", "", "last"),
        ("FROM x AS a\nFROM y AS last\n", "a", "a"),
        ("FROM x AS a\nFROM y\n", "", "default"),
    ],
)
def test_the_stage_that_is_built_has_its_argument(text: str, target: str, expected: str) -> None:
    assert global_arguments(BuildRequest(".", target=target), parse(text)).scope["TARGETSTAGE"] == expected


def test_what_nobody_declared_is_told_unless_it_needs_no_declaration() -> None:
    special = ["HTTP_PROXY", "no_proxy", "SOURCE_DATE_EPOCH", "BUILDKIT_INLINE_CACHE", "BUILDKIT_SYNTAX", "TARGETOS"]
    assert Arguments([(name, "x") for name in [*special, "OTHER"]]).unused() == ["OTHER"]


def labels(shop: Any, text: str, **options: Any) -> dict[str, str]:
    found: dict[str, str] = shop.build(text, **options).config.config["Labels"]
    return found


@root_only
def test_a_global_argument_is_for_from_lines_and_bare_declarations(shop: Any) -> None:
    text = "ARG V=1\nFROM scratch\nLABEL before=[$V]\nARG V\nLABEL after=[$V]\n"
    assert labels(shop, text) == {"before": "[]", "after": "[1]"}
    assert labels(shop, text, build_args=[("V", "2")]) == {"before": "[]", "after": "[2]"}


@root_only
def test_a_default_of_the_stage_hides_the_global_value(shop: Any) -> None:
    text = "ARG V=1\nFROM scratch\nARG V=3\nLABEL v=$V\n"
    assert labels(shop, text) == {"v": "3"}
    assert labels(shop, text, build_args=[("V", "2")]) == {"v": "2"}


@root_only
def test_an_argument_is_inherited_by_a_stage_on_its_stage_and_by_no_other(shop: Any) -> None:
    text = "FROM scratch AS a\nARG V=1\nFROM scratch AS other\nLABEL v=[$V]\nFROM a\nLABEL v=[$V]\n"
    assert labels(shop, text, target="other") == {"v": "[]"}
    assert labels(shop, text) == {"v": "[1]"}


@root_only
def test_defaults_see_what_stands_before_them_on_the_line_too(shop: Any) -> None:
    assert labels(shop, "FROM scratch\nENV e=0\nARG a=$e b=$a'1' c\nLABEL v=[$b$c]\n") == {"v": "[01]"}


@root_only
def test_an_automatic_argument_is_seen_once_it_is_declared(shop: Any) -> None:
    text = (
        "FROM scratch AS a\nLABEL before=[$TARGETARCH]\nARG TARGETARCH TARGETSTAGE\nLABEL v=$TARGETARCH/$TARGETSTAGE\n"
    )
    architecture = host_platform().split("/")[1]
    assert labels(shop, text) == {"before": "[]", "v": f"{architecture}/a"}


@root_only
def test_from_sees_global_arguments_only(shop: Any) -> None:
    for text in ("FROM scratch\nARG B=scratch\nFROM $B\n", "ARG B\nFROM $B\n"):
        with pytest.raises(DockerfileError, match=r"base name '\$B' of FROM is empty"):
            shop.build(text)
    with pytest.raises(NoSuchImageError):
        shop.pull("scratch:1")
    assert shop.build("ARG B=scra\nFROM ${B}tch\n").config.diff_ids == ()


@root_only
def test_proxies_reach_run_and_nothing_that_stays(shop: Any) -> None:
    text = "FROM scratch\nRUN write /a A\n"
    first = shop.build(text, build_args=[("http_proxy", "http://secret")])
    assert {"http_proxy=http://secret", "HTTP_PROXY=http://secret"} <= set(shop.spy.runs[0]["env"])
    assert "secret" not in str(first.config.raw)
    assert shop.build(text, build_args=[("http_proxy", "http://other")]).id == first.id
    assert shop.spy.runs == [], "they are no part of the key"
    declared = shop.build("FROM scratch\nARG http_proxy\nRUN write /a A\n", build_args=[("http_proxy", "http://p")])
    assert "RUN |1 http_proxy=http://p /bin/sh -c write /a A # buildkit" in str(declared.config.raw)
