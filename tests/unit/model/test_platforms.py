"""Platforms: what containerd's Parse and Normalize make of each spelling, and which image may stand in for which."""

from __future__ import annotations

import pytest

from minidock.errors import UsageError
from minidock.model.platforms import Platform, parse_platform, platform_of, serves


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("x86-64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("i386", "linux/386"),
        ("linux/386/x", "linux/386"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/5", "linux/arm/v5"),
        ("Linux/ARM/V6", "linux/arm/v6"),
        ("linux", "linux/amd64"),
        ("windows", "windows/amd64"),
        ("macos/aarch64", "darwin/arm64"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("linux/never-heard", "linux/never-heard"),
        ("riscv64", "linux/riscv64"),
    ],
)
def test_every_spelling_has_one_name(text: str, name: str) -> None:
    platform = parse_platform(text, host="linux/amd64")
    assert platform.text() == name
    assert parse_platform(name, host="linux/s390x") == platform, "the name is its own spelling"


def test_a_system_alone_is_this_machine_with_its_variant() -> None:
    assert parse_platform("linux", host="linux/arm/v6").text() == "linux/arm/v6"


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "linux//v7", "a/b/c/d", "linux/a b", "never-heard", "linux/amd64,x"]
)
def test_what_is_no_platform_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="invalid platform") as caught:
        parse_platform(text, host="linux/amd64")
    assert repr(text) in caught.value.message


def test_the_members_that_say_it() -> None:
    assert Platform("linux", "arm", "v7").fields() == {"os": "linux", "architecture": "arm", "variant": "v7"}
    assert Platform("windows", "amd64", "", "10").fields()["os.version"] == "10"
    assert platform_of({"os": "linux", "architecture": "arm64", "variant": "v8"}) == Platform("linux", "arm64")
    assert platform_of({"os": "linux"}) is None


@pytest.mark.parametrize(
    ("image", "asked", "expected"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/386", "linux/amd64", True),
        ("linux/amd64", "linux/386", False),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm/v7", "linux/arm64", True),
        ("linux/arm64", "linux/amd64", False),
        ("windows/amd64", "linux/amd64", False),
        ("linux/amd64/v3", "linux/amd64/v2", False),
        ("linux/amd64", "linux/amd64/v2", True),
    ],
)
def test_which_image_may_stand_in(image: str, asked: str, expected: bool) -> None:
    host = "linux/amd64"
    assert serves(parse_platform(image, host=host), parse_platform(asked, host=host)) is expected
