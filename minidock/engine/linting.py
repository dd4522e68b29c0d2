"""``build --check``: the checks of a Dockerfile alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.checks import Report, check
from minidock.build.progress import QuietProgress
from minidock.build.request import BuildRequest
from minidock.engine.building import build_arguments, wanted_platform
from minidock.engine.parts import open_rootfs
from minidock.store.images import Images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.engine.base import EngineBase


def lint(
    engine: EngineBase,
    context: str,
    *,
    text: str | None = None,
    dockerfile: str = "",
    build_args: Mapping[str, str] | Sequence[str] = (),
    target: str = "",
    contexts: Sequence[str] = (),
    ignorefile: str = "",
    platform: str = "",
) -> Report:
    """What the checks find in a context's Dockerfile."""
    request = BuildRequest(
        context,
        dockerfile,
        text,
        build_args=build_arguments(build_args),
        target=target,
        contexts=tuple(contexts),
        ignorefile=ignorefile,
        platform=wanted_platform(platform),
    )
    root = engine.ready()
    quiet = QuietProgress(lambda _: None)
    return check(request, root=root, images=Images(root), rootfs=open_rootfs(engine), progress=quiet)
