"""What a build is for: automatic arguments, configurations, bases of other platforms, and commands of theirs."""

from __future__ import annotations

import os
from typing import Any

import pytest

from minidock.build.arguments import automatic, host_platform, platform_name
from minidock.errors import BuildError, UsageError
from minidock.kernel import binfmt
from minidock.kernel.binfmt import Handler
from minidock.runtime.emulation import elf_head

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="a build makes files root's; without root that is refused"),
    pytest.mark.skipif(host_platform() != "linux/amd64", reason="these images are written for an amd64 host"),
]


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this host has: no handler, until a test registers one."""
    monkeypatch.setattr(binfmt, "handlers", list)


def platform_of(image: Any) -> tuple[str, str, str | None]:
    raw = image.config.raw
    return raw["os"], raw["architecture"], raw.get("variant")


def foreign(shop: Any, name: str, architecture: str, **fields: str) -> Any:
    """An image for another architecture, of one file."""
    image = shop.base(name, {"base": name}, Env=["PATH=/bin", "A=1", "B=2"], Labels={"x": "1", "y": "2"})
    config = image.config.copy()
    config.raw.update(architecture=architecture, **fields)
    return shop.images.commit(config, image.manifest.layers, names=[name])


def test_the_automatic_arguments_part_target_and_build() -> None:
    found = automatic("last", "linux/arm/v7")
    assert {name: found[f"TARGET{name}"] for name in ("PLATFORM", "OS", "ARCH", "VARIANT", "OSVERSION", "STAGE")} == {
        "PLATFORM": "linux/arm/v7",
        "OS": "linux",
        "ARCH": "arm",
        "VARIANT": "v7",
        "OSVERSION": "",
        "STAGE": "last",
    }
    assert (found["BUILDPLATFORM"], found["BUILDARCH"]) == ("linux/amd64", "amd64")
    version = automatic("", platform_name("windows(10.0.17763)/amd64"))
    assert (version["TARGETOS"], version["TARGETOSVERSION"]) == ("windows", "10.0.17763")


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("", ("linux", "amd64", None)),
        ("linux/arm64", ("linux", "arm64", None)),
        ("linux/arm/v7", ("linux", "arm", "v7")),
        ("darwin/arm64", ("darwin", "arm64", None)),
    ],
)
def test_an_image_from_nothing_is_for_the_platform_of_the_build(shop: Any, platform: str, expected: Any) -> None:
    (shop.context / "a").write_text("A")
    image = shop.build("FROM scratch\nARG TARGETPLATFORM\nLABEL for=$TARGETPLATFORM\nCOPY a /\n", platform=platform)
    assert platform_of(image) == expected
    assert image.config.config["Labels"] == {"for": platform or "linux/amd64"}
    assert shop.files(image) == {"a": "A"}


def test_compiling_for_another_platform_needs_no_emulation(shop: Any) -> None:
    shop.base("tools", {})
    text = (
        "FROM --platform=$BUILDPLATFORM tools AS compiler\nARG TARGETARCH\nRUN write /program $TARGETARCH\n"
        "FROM scratch\nCOPY --from=compiler /program /\n"
    )
    image = shop.build(text, platform="linux/riscv64")
    assert platform_of(image) == ("linux", "riscv64", None)
    assert "TARGETARCH=riscv64" in shop.spy.runs[0]["env"]
    shop.build(text, platform="linux/riscv64")
    assert shop.spy.runs == []
    shop.build(text, platform="linux/s390x")
    assert len(shop.spy.runs) == 1, "another target is another value of the argument"


def test_the_image_is_for_what_was_asked_for_whatever_its_base_is_for(shop: Any) -> None:
    shop.base("tools", {})
    image = shop.build("FROM --platform=$BUILDPLATFORM tools\nRUN write /a A\n", platform="linux/arm/v7")
    assert platform_of(image) == ("linux", "arm", "v7")


def test_a_base_for_another_platform_than_asked_for_is_an_error(shop: Any) -> None:
    shop.base("tools", {})
    for text, options in (
        ("FROM tools AS a\nRUN write /a A\n", {"platform": "linux/arm64"}),
        ("FROM --platform=arm64 tools\nRUN write /a A\n", {}),
    ):
        with pytest.raises(
            BuildError, match=r"'tools' on this host is for linux/amd64, and linux/arm64 is asked for"
        ) as e:
            shop.build(text, **options)
        assert e.value.line == 1
        assert shop.spy.runs == []
    with pytest.raises(BuildError, match="linux/arm64 is asked for") as caught:
        shop.build("FROM scratch\nCOPY --from=tools / /\n", platform="linux/arm64")
    assert caught.value.line == 2


def test_without_a_wish_the_base_decides_and_the_checks_say_so(shop: Any) -> None:
    foreign(shop, "other", "arm", variant="v6")
    image = shop.build("FROM other\nENV a=b\n")
    assert platform_of(image) == ("linux", "arm", "v6")
    warnings = [line for line in shop.spy.lines if "InvalidBaseImagePlatform" in line]
    assert len(warnings) == 1
    assert "for linux/arm/v6, but this build is for linux/amd64" in warnings[0]


def test_a_command_of_another_architecture_is_refused_before_it_runs(shop: Any) -> None:
    foreign(shop, "other", "arm64")
    with pytest.raises(BuildError) as caught:
        shop.build("FROM other\nENV a=b\nRUN write /a A\n")
    assert caught.value.message == (
        "cannot run linux/arm64 commands on this x86_64 host: binfmt_misc has no handler with flag F for arm64"
    )
    assert "qemu-user-static" in caught.value.hint
    assert caught.value.line == 3
    assert shop.spy.runs == []


def test_a_command_of_another_architecture_runs_with_a_handler(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Handler("qemu-aarch64", True, "/usr/bin/qemu", "OCF", 0, elf_head("arm64")[:20])
    monkeypatch.setattr(binfmt, "handlers", lambda: [handler])
    foreign(shop, "other", "arm64")
    text = "FROM other AS a\nRUN write /a A\nFROM a\nRUN write /b B\n"
    first = shop.build(text, platform="linux/arm64/v8".removesuffix("/v8"))
    assert len(shop.spy.runs) == 2
    assert not [line for line in shop.spy.lines if "InvalidBaseImagePlatform" in line]
    monkeypatch.setattr(binfmt, "handlers", list)
    assert shop.build(text).id == first.id, "what is in the cache needs no handler"
    assert shop.spy.runs == []


def test_commands_of_the_same_processor_run(shop: Any) -> None:
    foreign(shop, "small", "386")
    shop.build("FROM small\nRUN write /a A\n")
    assert len(shop.spy.runs) == 1
    shop.build("FROM small\nRUN write /a A\n", platform="linux/amd64")
    assert len(shop.spy.runs) == 1, "a command of another platform is another step"


def test_what_is_not_wanted_of_the_base_is_left_out(shop: Any) -> None:
    foreign(shop, "base", "amd64")
    image = shop.build(
        "FROM base\nENV C=3\nRUN write /a A\n",
        unset_env=("A", "C", "NEVER"),
        unset_labels=("x",),
        labels=(("z", "3"),),
    )
    assert image.config.config["Env"] == ["PATH=/bin", "B=2"]
    assert image.config.config["Labels"] == {"y": "2", "z": "3"}
    assert "A=1" in shop.spy.runs[0]["env"], "the steps have it still"
    assert "Labels" not in shop.build("FROM base\nENV q=1\n", unset_labels=("x", "y")).config.config


@pytest.mark.parametrize("text", ["FROM --platform=a*b scratch", "ARG P\nFROM --platform=$P scratch"])
def test_what_is_no_platform_is_refused_at_its_line(shop: Any, text: str) -> None:
    with pytest.raises(BuildError, match="platform") as caught:
        shop.build(f"{text}\nENV a=b\n")
    assert caught.value.line == text.count("\n") + 1


def test_pull_takes_the_image_of_this_host_where_no_other_can_be_had(shop: Any) -> None:
    shop.base("tools", {"f": "F"})
    image = shop.build("FROM tools\nENV a=b\n", pull=True)
    assert shop.pulled == ["tools"]
    assert shop.files(image) == {"f": "F"}
    assert "warning: --pull: tools cannot be pulled, the one on this host is used" in shop.spy.lines
    with pytest.raises(BuildError, match="no such image: nowhere"):
        shop.build("FROM nowhere\nENV a=b\n", pull=True)


def test_several_platforms_at_once_are_refused_in_a_sentence() -> None:
    from minidock.engine.building import wanted_platform

    assert [wanted_platform(text) for text in ("", "aarch64")] == ["", "linux/arm64"]
    with pytest.raises(UsageError, match="several platforms at once"):
        wanted_platform("linux/amd64,linux/arm64")
