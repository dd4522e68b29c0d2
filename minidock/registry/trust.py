"""Whom to trust: where a server may send a request, who may see a registry's credentials, whose certificate is good."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from minidock.errors import RegistryError
from minidock.registry.places import is_local

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from minidock.registry.places import Place


def place_of(realm: str) -> SplitResult | None:
    """The parts of a URL that a server names; None where it is none, or holds a name and password of its own."""
    try:
        parts = urlsplit(realm)
        _ = parts.port
    except ValueError:
        return None
    name = parts.hostname or ""
    possible = len(name) < 254 and all(0 < len(part) < 64 for part in name.rstrip(".").split("."))
    ok = parts.scheme in ("http", "https") and possible and parts.username is None
    return parts if ok and not any(c <= " " or c == "\x7f" for c in realm) else None


def may_know(host: str, realm: str) -> bool:
    """Whether a realm may see the credentials of a host: it is the same, or both are of one organisation's domain, as
    auth.docker.io and registry-1.docker.io are; anywhere else a registry could have them sent to whom it likes."""
    if host == realm:
        return True
    names = [re.sub(r":[0-9]+\Z", "", text) for text in (host, realm)]
    if names[0] == names[1]:
        return True
    if any(is_local(name) or name.replace(".", "").isdigit() or "[" in name for name in names):
        return all(map(is_local, names))
    ends = [name.lower().split(".")[-2:] for name in names]
    # "co.uk" and the like are nobody's own.
    if len(ends[0]) < 2 or (len(ends[0][0]) <= 3 and len(ends[0][1]) == 2):
        return False
    return ends[0] == ends[1]


def tls_context(place: Place, certificates: tuple[str, ...]) -> ssl.SSLContext | None:
    """How the server's certificate is looked at; None for the usual way."""
    extra = [path for folder in certificates for path in sorted(Path(folder, place.host).glob("*.crt"))]
    if place.verified and not extra:
        return None
    context = ssl.create_default_context()
    for path in extra:
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(f"cannot use the certificate {path}: {error}") from None
    if not place.verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
