"""Whether programs of another architecture run here, and what is said where they do not."""

from __future__ import annotations

import errno

import pytest

from minidock.errors import HostError
from minidock.kernel import binfmt
from minidock.kernel.binfmt import Handler
from minidock.runtime.emulation import check_runs, elf_head


def handler(architecture: str, flags: str = "F", *, enabled: bool = True) -> Handler:
    return Handler(f"qemu-{architecture}", enabled, "/usr/bin/qemu", flags, 0, elf_head(architecture)[:20])


def having(monkeypatch: pytest.MonkeyPatch, *found: Handler) -> None:
    monkeypatch.setattr(binfmt, "handlers", lambda: list(found))


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("x86_64", "linux/amd64/v3"),
        ("x86_64", "linux/386"),
        ("aarch64", "linux/arm64"),
        ("aarch64", "linux/arm/v7"),
        ("riscv64", "linux/riscv64"),
    ],
)
def test_the_processor_runs_its_own_without_a_look(
    monkeypatch: pytest.MonkeyPatch, machine: str, platform: str
) -> None:
    def looked() -> None:
        raise AssertionError("binfmt_misc was looked at")

    monkeypatch.setattr(binfmt, "handlers", looked)
    check_runs(platform, machine=machine)


def test_a_handler_with_flag_f_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, handler("arm64", "OCF"), handler("riscv64", ""))
    check_runs("linux/arm64", machine="x86_64")
    with pytest.raises(HostError, match=r"linux/riscv64 .* the handler qemu-riscv64 of binfmt_misc has no flag F"):
        check_runs("linux/riscv64", machine="x86_64")


@pytest.mark.parametrize("found", [(), (handler("arm"),), (handler("arm64", enabled=False),)])
def test_without_one_the_sentence_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, found: tuple[Handler, ...]
) -> None:
    having(monkeypatch, *found)
    with pytest.raises(HostError) as caught:
        check_runs("linux/arm64", machine="x86_64")
    assert caught.value.message == (
        "cannot run linux/arm64 commands on this x86_64 host: binfmt_misc has no handler with flag F for arm64"
    )
    assert "qemu-user-static" in caught.value.hint
    assert "binfmt-support" in caught.value.hint


def test_a_kernel_without_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(binfmt, "handlers", missing)
    with pytest.raises(HostError, match="its kernel has no binfmt_misc"):
        check_runs("linux/arm64", machine="x86_64")


def test_where_nothing_can_be_seen_the_kernel_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binfmt, "handlers", lambda: None)
    check_runs("linux/arm64", machine="x86_64")


def test_what_no_handler_could_do() -> None:
    with pytest.raises(HostError, match="cannot run commands for windows/amd64: this host is linux"):
        check_runs("windows/amd64", machine="x86_64")
    with pytest.raises(HostError, match="unknown architecture"):
        check_runs("linux/never-heard", machine="x86_64")
