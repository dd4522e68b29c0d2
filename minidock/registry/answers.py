"""A registry's answers: bodies within bounds, and errors in words (distribution-spec, "Error Codes")."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import urllib3

from minidock.errors import RegistryError
from minidock.log import printable
from minidock.registry.places import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ERROR = 1 << 20
_BLOCK = 1 << 16
# A body that may be held in memory has to be there after so many seconds.
_DEADLINE = 60.0


def read_all(
    response: urllib3.BaseHTTPResponse, *, limit: int, what: str, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """The whole body of at most ``limit`` bytes. Raises RegistryError, whose message begins with ``what``, for more,
    and for one that comes too slowly; urllib3's errors pass through."""
    end = clock() + _DEADLINE
    data = bytearray()
    while piece := response.read1(_BLOCK):
        data += piece
        if len(data) > limit:
            raise RegistryError(f"{what} has more than the {limit} bytes allowed")
        if clock() > end:
            raise RegistryError(f"{what} did not come within {_DEADLINE:.0f} seconds")
    return bytes(data)


def said(response: urllib3.BaseHTTPResponse) -> tuple[list[str], str]:
    """The error codes of an answer, and its message for people; a body that is none of the form gives neither."""
    try:
        value = json.loads(read_all(response, limit=MAX_ERROR, what="the registry's error"))
    except (ValueError, RecursionError, RegistryError, urllib3.exceptions.HTTPError):
        return [], ""
    errors = value.get("errors") if isinstance(value, dict) else None
    entries = [entry for entry in errors if isinstance(entry, dict)] if isinstance(errors, list) else []
    codes = [str(entry.get("code", "")) for entry in entries]
    message = next((str(entry["message"]) for entry in entries if entry.get("message")), "")
    if not message and isinstance(value, dict):
        # Token servers say it so.
        message = str(value.get("details") or value.get("error_description") or value.get("message") or "")
    return codes, printable(" ".join(message.split()))[:300]


def refusal(
    response: urllib3.BaseHTTPResponse, *, what: str, host: str, authorized: bool, login: str = ""
) -> RegistryError:
    """What to tell of an answer that is not the wanted one; ``what`` is what was to be done, as "pull HOST/NAME", and
    ``login`` the registry to log in to, where that is not the ``host`` that answers."""
    codes, message = said(response)
    status = response.status
    tail = f": {message}" if message else ""
    if status in (401, 403):
        known = "its credentials do not allow that: " if authorized else ""
        return RegistryError(f"cannot {what}: {host} denies access{tail}", hint=f"{known}{_login(login or host)}")
    if status == 404:
        if "NAME_UNKNOWN" in codes:
            return RegistryError(f"cannot {what}: {host} has no such repository", hint="look at the name")
        if "BLOB_UNKNOWN" in codes:
            return RegistryError(
                f"cannot {what}: {host} lacks a layer, or the configuration, that the image names",
                hint="the image in the registry is damaged: it has to be pushed again",
            )
        return RegistryError(f"cannot {what}: {host} has no such image", hint="look at the tag or digest")
    if status == 429:
        return RegistryError(
            f"cannot {what}: {host} limits how often that may be asked{tail}",
            hint="try again later" if authorized else f"try again later, or {_login(login or host)}",
        )
    reason = " ".join(part for part in (str(status), printable(response.reason or "")[:100]) if part)
    return RegistryError(f"cannot {what}: {host} answers {reason}{tail}")


def _login(host: str) -> str:
    return "`minidock login`" if host == DOCKER_HUB else f"`minidock login {host}`"


def decode(data: bytes, *, what: str) -> Any:
    """JSON of a registry. Raises RegistryError, whose message begins with ``what``, for anything else, however deep or
    large its parts are."""
    try:
        return json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise RegistryError(f"{what} is not valid JSON") from None


def _refuse(name: str) -> None:
    raise ValueError(name)
