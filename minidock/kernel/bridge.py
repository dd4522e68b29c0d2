"""Making and removing bridges with pyroute2: what is done once, not at every start."""

from __future__ import annotations

import errno
import os
from typing import Any


def make_bridge(name: str, *, mac: str, address: str, prefix_len: int, mtu: int) -> None:
    """Make the bridge if it is missing, give it the IPv4 address if it has none, keep IPv6 off it, set it up.

    It is set up last, so that a bridge that is up is whole. Safe to repeat. Raises OSError.
    """
    with _route() as route:
        try:
            index = _index(route, name)
            if not index:
                route.link("add", ifname=name, kind="bridge", address=mac)
                index = _index(route, name)
            # Set afterwards it is kept; given at birth it would follow the ports' and rise again without any.
            route.link("set", index=index, mtu=mtu)
            write_parameter(f"net/ipv6/conf/{name}/disable_ipv6", "1")
            write_parameter(f"net/ipv6/conf/{name}/accept_ra", "0")
            write_parameter(f"net/ipv4/conf/{name}/accept_redirects", "0")
            write_parameter(f"net/ipv4/conf/{name}/send_redirects", "0")
            write_parameter(f"net/ipv4/conf/{name}/route_localnet", "0")
            if not any(True for _ in route.get_addr(index=index, family=2)):
                broadcast = _last_address(address, prefix_len)
                route.addr("add", index=index, address=address, prefixlen=prefix_len, broadcast=broadcast)
            route.link("set", index=index, state="up")
        except Exception as error:
            raise _as_oserror(error, name) from None


def remove_link(name: str) -> None:
    """Delete a link of any kind; one that is missing is no error. Raises OSError."""
    with _route() as route:
        try:
            index = _index(route, name)
            if index:
                route.link("del", index=index)
        except Exception as error:
            raise _as_oserror(error, name) from None


def read_parameter(path: str) -> str:
    """The value of /proc/sys/``path`` in the caller's network namespace; "" where this kernel has no such file."""
    try:
        fd = os.open(f"/proc/sys/{path}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, 4096).decode("ascii").strip()
    finally:
        os.close(fd)


def write_parameter(path: str, value: str) -> None:
    """Set /proc/sys/``path`` where the kernel has it and it differs. Raises OSError."""
    if read_parameter(path) in {"", value}:
        return
    fd = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"/proc/sys/{path}") from None
    finally:
        os.close(fd)


def _route() -> Any:
    from pyroute2 import IPRoute

    return IPRoute()


def _index(route: Any, name: str) -> int:
    found = route.link_lookup(ifname=name)
    return int(found[0]) if found else 0


def _last_address(address: str, prefix_len: int) -> str:
    import _socket

    number = int.from_bytes(_socket.inet_aton(address), "big") | ((1 << (32 - prefix_len)) - 1)
    return _socket.inet_ntoa(number.to_bytes(4, "big"))


def _as_oserror(error: Exception, name: str) -> OSError:
    """pyroute2's own error carries the errno as ``code``."""
    if isinstance(error, OSError):
        return error
    code = getattr(error, "code", errno.EIO)
    return OSError(code, os.strerror(code), name)
