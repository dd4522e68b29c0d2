"""binfmt_misc: what its files say, and which programs a handler is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from minidock.kernel.binfmt import Handler, handlers, parse_handler
from minidock.runtime.emulation import elf_head

ARM64 = """enabled
interpreter /usr/bin/qemu-aarch64-static
flags: OCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


def place(folder: Path, status: str = "enabled\n", **texts: str) -> str:
    """A folder that looks like a mounted binfmt_misc."""
    (folder / "status").write_text(status)
    (folder / "register").write_text("")
    for name, text in texts.items():
        (folder / name.replace("_", "-")).write_text(text)
    return str(folder)


def test_handlers_are_read_with_their_flags(tmp_path: Path) -> None:
    where = place(
        tmp_path, qemu_aarch64=ARM64, python="disabled\ninterpreter /usr/bin/python3\nflags: \nextension .pyc\n"
    )
    found = handlers(where)
    assert found is not None
    assert [(handler.name, handler.enabled, handler.flags) for handler in found] == [
        ("python", False, ""),
        ("qemu-aarch64", True, "OCF"),
    ]
    assert found[1].interpreter == "/usr/bin/qemu-aarch64-static"
    assert [handler.matches(elf_head("arm64")) for handler in found] == [False, True]


def test_nothing_is_handled_while_all_is_switched_off(tmp_path: Path) -> None:
    assert handlers(place(tmp_path, "disabled\n", qemu_aarch64=ARM64)) == []


def test_the_mask_tells_what_counts() -> None:
    handler = parse_handler("qemu-aarch64", ARM64)
    assert handler is not None
    for name in ("arm64",):
        assert handler.matches(elf_head(name))
    shared_object = bytearray(elf_head("arm64"))
    shared_object[16] = 3
    assert handler.matches(bytes(shared_object)), "the mask leaves out the bit that parts programs from libraries"
    for name in ("amd64", "386", "arm", "riscv64", "mips64", "s390x"):
        assert not handler.matches(elf_head(name)), name
    assert not handler.matches(b"\x7fELF"), "a file that is shorter than the magic"


def test_an_offset_and_no_mask() -> None:
    handler = Handler("x", enabled=True, interpreter="/i", flags="", offset=2, magic=b"LF")
    assert handler.matches(b"\x7fELF") is True
    assert handler.matches(b"\x7fELG") is False


@pytest.mark.parametrize(
    "text", ["", "enabled\n", "enabled\ninterpreter /x\noffset z\n", "enabled\ninterpreter /x\nmagic 7\n"]
)
def test_what_is_no_handler_is_passed_over(text: str) -> None:
    assert parse_handler("x", text) is None
