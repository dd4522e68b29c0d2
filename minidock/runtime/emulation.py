"""Whether programs of another architecture run on this host: by the processor itself, or through binfmt_misc."""

from __future__ import annotations

import errno
import os
from typing import Literal

from minidock.errors import HostError
from minidock.kernel import binfmt
from minidock.runtime.program import INSTALL_HANDLERS

# Of each architecture, in OCI's words: the class, byte order and machine of its ELF files (elf(5)).
_ELF = {
    "386": (1, 1, 3),
    "amd64": (2, 1, 62),
    "arm": (1, 1, 40),
    "arm64": (2, 1, 183),
    "loong64": (2, 1, 258),
    "mips": (1, 2, 8),
    "mips64": (2, 2, 8),
    "mips64le": (2, 1, 8),
    "mipsle": (1, 1, 8),
    "ppc64": (2, 2, 21),
    "ppc64le": (2, 1, 21),
    "riscv64": (2, 1, 243),
    "s390x": (2, 2, 22),
}
_NATIVE = {"x86_64": ("amd64", "386"), "aarch64": ("arm64", "arm"), "armv7l": ("arm",), "i686": ("386",)}


def check_runs(platform: str, *, machine: str = "") -> None:
    """Raise HostError, saying what is missing, where programs for ``platform`` cannot run on this host.

    ``platform`` is ``os/architecture[/variant]``; ``machine`` is the host's as uname(2) has it. Where the handlers are
    not to be seen, nothing is raised: the kernel has the last word anyway.
    """
    system, architecture = [*platform.split("/"), ""][:2]
    machine = machine or os.uname().machine
    if system != "linux":
        raise HostError(f"cannot run commands for {platform}: this host is linux", hint="run them in a linux stage")
    if architecture in _NATIVE.get(machine, (machine,)):
        return
    if architecture not in _ELF:
        raise HostError(f"cannot run commands for {platform} on this {machine} host: unknown architecture")
    what = f"cannot run {platform} commands on this {machine} host"
    try:
        found = binfmt.handlers()
    except OSError as error:
        why = "its kernel has no binfmt_misc" if error.errno == errno.ENODEV else f"binfmt_misc: {error.strerror}"
        raise HostError(f"{what}: {why}", hint="load the kernel module binfmt_misc") from None
    if found is None:
        return
    fitting = [handler for handler in found if handler.enabled and handler.matches(elf_head(architecture))]
    # The one that was registered last is asked first, and there is no telling which that was.
    if any("F" in handler.flags for handler in fitting):
        return
    if fitting:
        raise HostError(
            f"{what}: the handler {fitting[0].name} of binfmt_misc has no flag F, so that its {fitting[0].interpreter} "
            "is not found inside",
            hint=f"register it with the flag F; {INSTALL_HANDLERS}",
        )
    raise HostError(f"{what}: binfmt_misc has no handler with flag F for {architecture}", hint=INSTALL_HANDLERS)


def elf_head(architecture: str) -> bytes:
    """How a program for that architecture, one of OCI's words, begins. Raises KeyError for one that is not known."""
    width, order, machine = _ELF[architecture]
    endian: Literal["little", "big"] = "little" if order == 1 else "big"
    parts = [(2).to_bytes(2, endian), machine.to_bytes(2, endian), (1).to_bytes(4, endian)]
    return (b"\x7fELF" + bytes((width, order, 1, 0)) + bytes(8) + b"".join(parts)).ljust(64, b"\0")
