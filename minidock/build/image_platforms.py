"""The platforms that images are for, as their configurations say it.

An image for this machine, which nearly all are, is told by a comparison of texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.arguments import host_platform
from minidock.errors import MinidockError, NoSuchImageError
from minidock.model.oci import ImageConfig

if TYPE_CHECKING:
    from minidock.store.images import Image


def new_config(platform: str) -> ImageConfig:
    """The configuration of an image without layers, for a platform in its one spelling."""
    config = ImageConfig.new(architecture=platform.split("/")[1])
    if platform.count("/") > 1 or not platform.startswith("linux/"):
        set_platform(config, platform)
    return config


def own_platform(config: ImageConfig) -> str:
    """What an image is for, in the one spelling; empty where it does not say it."""
    raw = config.raw
    text = f"{raw.get('os')}/{raw.get('architecture')}"
    if text == host_platform() and not raw.get("variant") and not raw.get("os.version"):
        return text
    from minidock.model.platforms import platform_of

    found = platform_of(raw)
    return found.text() if found is not None else ""


def foreign_here(config: ImageConfig) -> bool:
    """Whether an image is for a platform whose programs do not run on this host."""
    own = own_platform(config)
    if own in ("", host_platform()):
        return False
    from minidock.runtime.emulation import check_runs

    try:
        check_runs(own)
    except MinidockError:
        return True
    return False


def check_serves(image: Image, name: str, platform: str, *, else_say: str = "FROM --platform=") -> None:
    """Raise NoSuchImageError where the image that ``name`` means is for another platform than ``platform``;
    ``else_say`` is the flag that would take it as it is."""
    if own_platform(image.config) in ("", platform):
        return
    from minidock.model.platforms import parse_platform, platform_of, serves

    own = platform_of(image.config.raw)
    if own is not None and not serves(own, parse_platform(platform, host=host_platform())):
        raise NoSuchImageError(
            f"the image {name!r} on this host is for {own.text()}, and {platform} is asked for",
            hint=f"name an image for {platform}, or say {else_say}{own.text()}",
        )


def set_platform(config: ImageConfig, platform: str) -> None:
    """Let an image be for ``platform``, in its one spelling."""
    from minidock.model.platforms import parse_platform

    fields = parse_platform(platform, host=host_platform()).fields()
    same = all(config.raw.get(key) == fields[key] for key in ("os", "architecture"))
    if not same:
        # What the base says beyond that is of its own platform.
        for key in ("variant", "os.version", "os.features"):
            config.raw.pop(key, None)
    config.raw.update(fields)
