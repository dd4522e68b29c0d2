"""Where the repositories of a domain are served: the registry itself, its mirrors, and how each is spoken to.

Sources: distribution/reference (docker.io is served at another name), docker's ``daemon.json`` (``registry-mirrors``,
``insecure-registries``), docker's ``certs.d``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import UsageError
from minidock.model.reference import DEFAULT_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DOCKER_HUB = "registry-1.docker.io"
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")


class Settings(NamedTuple):
    """What the configuration says of registries.

    ``default`` serves the names that have no host, "" for Docker Hub; ``mirrors`` are asked before a domain, in order;
    ``insecure`` hosts (``HOST[:PORT]``) may be spoken to without TLS, and their certificates are not checked;
    ``certificates`` are folders that hold ``HOST[:PORT]/*.crt``, further authorities for one host.
    """

    default: str = ""
    mirrors: Mapping[str, Sequence[str]] = {}
    insecure: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ("/etc/minidock/certs.d", "/etc/docker/certs.d")


class Place(NamedTuple):
    """One server of a domain's repositories. ``host`` is ``HOST[:PORT]``; ``schemes`` are tried in turn; ``verified``
    says whether its certificate has to be valid. A ``mirror`` need not have everything."""

    host: str
    schemes: tuple[str, ...] = ("https",)
    verified: bool = True
    mirror: bool = False


def places(domain: str, settings: Settings) -> list[Place]:
    """The servers of a domain, in the order in which to ask them. Raises UsageError for a setting that is no host."""
    found = [_place(text, settings, mirror=True) for text in settings.mirrors.get(domain, ())]
    if domain == DEFAULT_DOMAIN:
        return [*found, _place(settings.default or DOCKER_HUB, settings)]
    return [*found, _place(domain, settings)]


def is_local(host: str) -> bool:
    """Whether ``HOST[:PORT]`` is this machine, to which docker speaks without TLS, too."""
    name = re.sub(r":[0-9]+\Z", "", host).strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _place(text: str, settings: Settings, *, mirror: bool = False) -> Place:
    scheme, separator, rest = text.partition("://")
    host = rest.rstrip("/") if separator else text
    if not _HOST.fullmatch(host) or (separator and scheme not in ("http", "https")):
        raise UsageError(
            f"{text!r} in the configuration is no registry", hint="the form is HOST[:PORT], or https:// before it"
        )
    open_to_all = is_local(host) or host in settings.insecure
    schemes = ("https", "http") if open_to_all else ("https",)
    if separator:
        if scheme == "http" and not open_to_all:
            raise UsageError(
                f"{text!r} in the configuration is without TLS", hint=f"add {host!r} to insecure_registries to allow it"
            )
        schemes = (scheme,)
    return Place(host, schemes, host not in settings.insecure, mirror)
