"""The words of EXPOSE as ports."""

from __future__ import annotations

import re

from minidock.errors import DockerfileError

_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_PROTOCOLS = ("tcp", "udp", "sctp")


def exposed_ports(words: list[str]) -> tuple[str, ...]:
    """EXPOSE's words as single ports ``80/tcp``, ranges written out, sorted by number and protocol, each once.

    An address and a port of the host before the port, as ``run -p`` takes them, are passed over. Raises DockerfileError
    for a word that is none.
    """
    found: set[tuple[int, str]] = set()
    for text in words:
        port, slash, protocol = _of_container(text.lower(), text).partition("/")
        first, last = _range(port, text)
        if slash and protocol not in _PROTOCOLS:
            raise DockerfileError(f"invalid protocol {protocol!r} in EXPOSE {text}", hint="it is tcp, udp or sctp")
        found.update((number, protocol or "tcp") for number in range(first, last + 1))
    return tuple(f"{port}/{protocol}" for port, protocol in sorted(found))


def _of_container(port: str, text: str) -> str:
    """The container's side of ``[[ADDRESS:]HOST-PORT:]PORT``; the host's must make sense all the same."""
    head, _, port = port.rpartition(":")
    address, _, host_port = head.rpartition(":")
    if host_port:
        _range(host_port, text)
    if address:
        import ipaddress

        try:
            ipaddress.ip_address(address[1:-1] if address[0] + address[-1] == "[]" else address)
        except ValueError:
            raise _invalid(text) from None
    return port


def _range(port: str, text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(port)
    first, last = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (0, 0)
    if not 0 < first <= last <= 65535:
        raise _invalid(text)
    return first, last


def _invalid(text: str) -> DockerfileError:
    return DockerfileError(f"invalid port {text[:80]!r} in EXPOSE", hint="write PORT, PORT/udp or FIRST-LAST/tcp")
