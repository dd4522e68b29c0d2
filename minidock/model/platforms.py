"""Platforms (``linux/arm64``): the grammar and the spellings of containerd's ``platforms`` package; no I/O.

A platform's one spelling is what containerd's Normalize gives: ``linux/arm64`` for ``arm64``, ``aarch64`` and
``linux/arm64/v8``; ``linux/arm/v7`` for ``linux/arm`` and ``armhf``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PART = re.compile(r"[A-Za-z0-9_.-]+")
_SYSTEM = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?")
_SYSTEMS = (
    "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos"
)
_ARCHITECTURES = (
    "386 amd64 arm arm64 armbe arm64be loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc ppc64 ppc64le "
    "riscv riscv64 s390 s390x sparc sparc64 wasm"
)
_NAMES = {"i386": "386", "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
_ARM = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}
_FORM = "the form is OS/ARCHITECTURE[/VARIANT], such as linux/amd64, linux/arm64 or linux/arm/v7"


class Platform(NamedTuple):
    """A platform in its one spelling; ``variant`` and ``version`` (of the operating system) may be empty."""

    system: str
    architecture: str
    variant: str = ""
    version: str = ""

    def text(self) -> str:
        """``linux/arm/v7``; a version stands in brackets behind the system, as containerd's FormatAll has it."""
        system = f"{self.system}({self.version})" if self.version else self.system
        return "/".join(part for part in (system, self.architecture, self.variant) if part)

    def fields(self) -> dict[str, str]:
        """The members of an image's configuration, and of a descriptor's ``platform``, that say it."""
        named = {"os": self.system, "architecture": self.architecture, "variant": self.variant}
        return {key: text for key, text in {**named, "os.version": self.version}.items() if text}


def parse_platform(text: str, *, host: str) -> Platform:
    """Read a platform in any spelling. ``host`` is this machine's, which fills in what ``linux`` or ``arm64`` alone
    leaves out. Raises UsageError, naming the text."""
    first, *rest = text.strip().split("/")
    found = _SYSTEM.fullmatch(first)
    if found is None or len(rest) > 2 or not all(_PART.fullmatch(part) for part in rest):
        raise UsageError(f"invalid platform {text!r}", hint=_FORM)
    system, version = found[1].lower(), found[2] or ""
    system = {"macos": "darwin"}.get(system, system)
    if rest:
        return Platform(system, *_normal(rest[0], rest[1] if len(rest) == 2 else ""), version)
    own = host.split("/")
    if system in _SYSTEMS.split():
        return Platform(system, own[1], own[2] if len(own) == 3 else "", version)
    architecture, variant = _normal(first, "")
    if architecture not in _ARCHITECTURES.split() or version:
        raise UsageError(f"invalid platform {text!r}: unknown operating system or architecture", hint=_FORM)
    return Platform(own[0], architecture, variant)


def platform_of(config: Mapping[str, object]) -> Platform | None:
    """The platform that an image's configuration says, None where it says none."""
    system, architecture = str(config.get("os") or ""), str(config.get("architecture") or "")
    if not system or not architecture:
        return None
    variant, version = str(config.get("variant") or ""), str(config.get("os.version") or "")
    return Platform(system.lower(), *_normal(architecture, variant), version)


def serves(image: Platform, asked: Platform) -> bool:
    """Whether an image may stand in where ``asked`` is wanted: the same but for an older variant, or the 32 bits of the
    same processor (containerd's ``platforms.Only``)."""
    if image.system != asked.system or (asked.version and image.version != asked.version):
        return False
    if image.architecture == asked.architecture:
        return not image.variant or not asked.variant or image.variant <= asked.variant
    return (asked.architecture, image.architecture) in (("amd64", "386"), ("arm64", "arm"))


def _normal(architecture: str, variant: str) -> tuple[str, str]:
    architecture, variant = architecture.lower(), variant.lower()
    if architecture == "armhf":
        return "arm", "v7"
    if architecture == "armel":
        return "arm", "v6"
    architecture = _NAMES.get(architecture, architecture)
    if architecture == "386" or (architecture, variant) == ("amd64", "v1"):
        return architecture, ""
    if architecture == "arm64":
        return architecture, "" if variant in ("8", "v8", "v8.0") else variant
    if architecture == "arm":
        return architecture, _ARM.get(variant, variant)
    return architecture, variant
