"""The texts of a container's /etc/hosts, /etc/hostname and /etc/resolv.conf (hosts(5), resolv.conf(5))."""

from __future__ import annotations

import re
from collections.abc import Sequence

HOST_FILE = "/etc/resolv.conf"
HOST_GATEWAY = "host-gateway"
# Where systemd-resolved keeps the servers that its stub on 127.0.0.53 asks.
RESOLVED_FILE = "/run/systemd/resolve/resolv.conf"
_MAX_BYTES = 1 << 20

_LOCALHOST = "127.0.0.1\tlocalhost\n"
_LOCALHOST_IPV6 = (
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
_IPV4_LOOPBACK = re.compile(r"127(\.\d+){1,3}|0\.0\.0\.0")


def hosts_text(
    hostname: str, address: str, extra: Sequence[tuple[str, str]] = (), *, gateway: str = "", ipv6: bool = False
) -> str:
    """/etc/hosts: localhost, ``extra`` as (name, address) in order, then the container's own address and name.

    An ``extra`` address of "host-gateway" is the host's, ``gateway``. ``address`` is "" for a container that has none.
    The lines of IPv6 are there only with ``ipv6``.
    """
    lines = [_LOCALHOST]
    if ipv6:
        lines.append(_LOCALHOST_IPV6)
    lines += [f"{gateway if target == HOST_GATEWAY else target}\t{name}\n" for name, target in extra]
    if address and hostname:
        lines.append(f"{address}\t{hostname}\n")
    return "".join(lines)


def hostname_text(hostname: str) -> str:
    """/etc/hostname."""
    return f"{hostname}\n"


def resolv_text(
    host_text: str,
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    ipv6: bool = False,
    own_namespace: bool = True,
) -> str:
    """/etc/resolv.conf: what was asked for, else the host's (``host_text``, see ``host_resolvers``).

    In a network namespace of its own a container reaches neither the host's loopback nor, without ``ipv6``, IPv6
    servers: these are left out. There is never a fallback to a public server; ``nameservers`` of the result tells
    whether any is left, and the caller warns if not. A ``search`` of "." asks for no search at all.
    """
    found = list(servers) or nameservers(host_text)
    if own_namespace and not servers:
        found = [server for server in found if _reachable(server, ipv6=ipv6)]
    domains = list(search) or _last_words(host_text, "search", "domain")
    choices = list(options) or _last_words(host_text, "options")
    lines = [f"nameserver {server}\n" for server in found]
    if domains and domains != ["."]:
        lines.append(f"search {' '.join(domains)}\n")
    if choices:
        lines.append(f"options {' '.join(choices)}\n")
    return "".join(lines)


def container_resolv_conf(
    *, servers: Sequence[str] = (), search: Sequence[str] = (), options: Sequence[str] = (), ipv6: bool = False
) -> str:
    """/etc/resolv.conf of a container with a network namespace of its own, from the host's as it is now."""
    return resolv_text(host_resolvers(), servers=servers, search=search, options=options, ipv6=ipv6)


def host_resolvers(*, host_file: str = HOST_FILE, resolved_file: str = RESOLVED_FILE) -> str:
    """The host's resolv.conf; where that names only systemd-resolved's stub, the file with the real servers.

    A file that is missing or unreadable is empty.
    """
    text = _read(host_file)
    servers = nameservers(text)
    if servers and all(_IPV4_LOOPBACK.fullmatch(server) for server in servers):
        real = _read(resolved_file)
        if nameservers(real):
            return real
    return text


def nameservers(text: str) -> list[str]:
    """The addresses of the ``nameserver`` lines in order."""
    return [words[1] for words in _lines(text) if words[0] == "nameserver" and len(words) > 1]


def _reachable(server: str, *, ipv6: bool) -> bool:
    if ":" in server:
        return ipv6 and server.partition("%")[0] != "::1"
    return not _IPV4_LOOPBACK.fullmatch(server)


def _last_words(text: str, *keywords: str) -> list[str]:
    """The words after the last line that starts with one of ``keywords``: later ones replace earlier ones."""
    found: list[str] = []
    for words in _lines(text):
        if words[0] in keywords:
            found = words[1:]
    return found


def _lines(text: str) -> list[list[str]]:
    """Words of each line; a comment starts a line with ``#`` or ``;``."""
    return [line.split() for line in text.splitlines() if line.strip() and line.lstrip()[0] not in "#;"]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_BYTES)
    except OSError:
        return ""
