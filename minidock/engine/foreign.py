"""``--platform`` of ``run`` and ``create``, and images whose programs are another machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.arguments import host_platform
from minidock.build.image_platforms import check_serves
from minidock.model.platforms import parse_platform, platform_of, serves

if TYPE_CHECKING:
    from minidock.log import Log
    from minidock.store.images import Image


def check_image(image: Image, name: str, asked: str, *, log: Log) -> None:
    """Raise NoSuchImageError where ``image``, which ``name`` means, is for another platform than ``asked``; where that
    is empty and it is not for this machine, say so on ``log``. Raises UsageError for what is no platform."""
    host = host_platform()
    if asked:
        check_serves(image, name, parse_platform(asked, host=host).text(), else_say="--platform ")
        return
    own = platform_of(image.config.raw)
    if own is not None and not serves(own, parse_platform(host, host=host)):
        log.warning(
            f"the requested image's platform ({own.text()}) does not match the detected host platform ({host}) "
            "and no specific platform was requested"
        )
