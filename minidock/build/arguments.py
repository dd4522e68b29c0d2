"""Where the values of ARG come from: ``--build-arg``, the automatic platform arguments, defaults."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.build.context import check_text
from minidock.dockerfile.expand import expand
from minidock.errors import DockerfileError, UsageError
from minidock.model.dating import EPOCH_VARIABLE, read_epoch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from minidock.build.request import BuildRequest
    from minidock.dockerfile.instructions import Arg
    from minidock.dockerfile.parser import Dockerfile

PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
CHECK_ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"
_INLINE_CACHE = "BUILDKIT_INLINE_CACHE"
# What docker's builder takes as --build-arg without a declaration: nobody is told that these were not consumed.
_SPECIAL = (
    EPOCH_VARIABLE,
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    CHECK_ARGUMENT,
    _INLINE_CACHE,
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SYNTAX",
)

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
}


def host_platform() -> str:
    """``linux/amd64`` and the like: the platform of this machine in OCI's words."""
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return "/".join(part for part in ("linux", architecture, variant) if part)


def platform_name(text: str) -> str:
    """A platform in its one spelling: ``linux/arm64`` for ``aarch64``. Raises UsageError for what is none."""
    from minidock.model.platforms import parse_platform

    return parse_platform(text, host=host_platform()).text()


def automatic(target: str, platform: str = "") -> dict[str, str]:
    """The arguments that are there without being given; a stage sees one after ``ARG NAME``. ``target`` is the stage
    that is built, ``platform`` what it is built for, in its one spelling; empty for this machine."""
    build = _parts_of(host_platform())
    sides = (("TARGET", _parts_of(platform) if platform else build), ("BUILD", build))
    values = {f"{side}{name}": value for side, parts in sides for name, value in parts.items()}
    return {**values, "TARGETSTAGE": target or "default"}


def _parts_of(platform: str) -> dict[str, str]:
    system, architecture, variant = [*platform.split("/"), ""][:3]
    name, _, version = system.rstrip(")").partition("(")
    return {"PLATFORM": platform, "OS": name, "ARCH": architecture, "VARIANT": variant, "OSVERSION": version}


def asks_for_inline_cache(build_args: Iterable[tuple[str, str]]) -> bool:
    """Whether ``--build-arg BUILDKIT_INLINE_CACHE`` says that the image is to keep its cache records; what is no truth
    value does not."""
    return dict(build_args).get(_INLINE_CACHE, "") in ("1", "t", "T", "true", "True", "TRUE")


def global_arguments(request: BuildRequest, dockerfile: Dockerfile, *, defaults: bool = False) -> Arguments:
    """The arguments of ``request`` with those that are declared before the first FROM; with ``defaults`` as if none
    were given. Raises UsageError for what can be no environment variable or time, DockerfileError with its place."""
    for name, value in request.build_args:
        check_text(f"{name}={value}", what=f"the build argument {name!r}")
    for name, value in request.labels:
        check_text(f"{name}={value}", what=f"the label {name!r}")
    target = request.target or dockerfile.stages[-1].name
    arguments = Arguments(() if defaults else request.build_args, target=target, platform=request.platform)
    for instruction in dockerfile.global_args:
        try:
            arguments.declare_global(instruction, escape=dockerfile.escape)
        except DockerfileError as error:
            raise dockerfile.source.locate(error, instruction.location) from None
    try:
        arguments.epoch = read_epoch(arguments.given.get(EPOCH_VARIABLE, arguments.scope.get(EPOCH_VARIABLE, "")))
    except ValueError as error:
        raise UsageError(str(error), hint="give a number of seconds, such as that of the last commit") from None
    return arguments


class Arguments:
    """The arguments of one build: what was given, and which of it was declared.

    ``given`` are the values of ``--build-arg``; ``scope`` holds the arguments declared before the first FROM and the
    automatic ones, which FROM lines see and stages may declare. ``epoch`` is SOURCE_DATE_EPOCH in seconds, None without
    one.
    """

    __slots__ = ("_used", "epoch", "given", "scope")

    def __init__(self, given: Iterable[tuple[str, str]], *, target: str = "", platform: str = "") -> None:
        self.epoch: int | None = None
        self.given = dict(given)
        self._used: set[str] = {*PROXIES, *_SPECIAL}
        known = automatic(target, platform)
        self.scope = {name: self.given.get(name, value) for name, value in known.items()}
        self._used.update(known)

    def declare_global(self, instruction: Arg, *, escape: str) -> None:
        """An ARG before the first FROM. Raises DockerfileError for a default that cannot be expanded."""
        for argument in instruction.args:
            self._used.add(argument.name)
            if argument.name in self.given:
                self.scope[argument.name] = self.given[argument.name]
            elif argument.default is not None:
                self.scope[argument.name] = expand(argument.default, self.scope, escape=escape)

    def value(self, name: str, default: str | None) -> str | None:
        """The value that ``ARG name[=default]`` has in a stage, ``default`` being expanded; None if there is none."""
        self._used.add(name)
        if name in self.given:
            return self.given[name]
        return default if default is not None else self.scope.get(name)

    def proxies(self, env: Mapping[str, str]) -> dict[str, str]:
        """The given proxy variables that ``env`` does not set: for RUN, and for no key and no history.

        One that is given in one letter case is there in both, as programs read either; one that
        ``env`` sets in either case is left to it.
        """
        found: dict[str, str] = {}
        for name in PROXIES:
            value = self.given.get(name, self.given.get(name.swapcase()))
            if value is not None and name not in env and name.swapcase() not in env:
                found[name] = value
        return found

    def unused(self) -> list[str]:
        """The names of ``--build-arg`` that nothing declared, sorted."""
        return sorted(self.given.keys() - self._used)
