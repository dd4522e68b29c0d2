"""Addresses of containers: a lease is a file ``<directory>/<address>`` that names its owner, for the whole host.

A lease is free when its owner's lock is: no one has to give it back. The MAC is derived from the address, so that a
re-leased address meets no stale neighbour.
"""

from __future__ import annotations

import _socket
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

from minidock.errors import NetworkError
from minidock.store import locks

# So many leases of the dead are looked for before an address that was never leased is taken.
_PROBES = 8
_LINK = "md"
_HEX = frozenset("0123456789abcdef")


class Lease(NamedTuple):
    """An IPv4 ``address``, the container's ``mac``, the lease's file, and the name of the link's end on the host."""

    address: str
    mac: str
    path: str
    link: str


def take(directory: str, *, gateway: str, prefix_len: int, container_id: str, root: str, lock_path: str) -> Lease:
    """Lease the lowest address that is free.

    ``directory`` is the bridge's, made (0700) if missing; ``root`` and ``container_id`` are recorded for people,
    ``lock_path`` is the file whose flock the owner holds: when nobody does, or it is missing, the lease is free. Raises
    NetworkError when every address is taken.
    """
    os.makedirs(directory, 0o700, exist_ok=True)
    owner = json.dumps({"root": root, "container": container_id, "lock": lock_path}).encode()
    with locks.exclusive(f"{directory}.lock"):
        for number in _candidates(directory, gateway, prefix_len):
            address = _socket.inet_ntoa(number.to_bytes(4, "big"))
            path = f"{directory}/{address}"
            _write_new(path, owner)
            return Lease(address, mac_of(address), path, link_name(container_id))
    raise NetworkError(
        f"every address of the network of {gateway}/{prefix_len} is leased", hint="stop a container that uses it"
    )


def release(path: str) -> None:
    """Give a lease back; one that is gone is no error. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def mac_of(address: str) -> str:
    """The locally administered MAC that belongs to an IPv4 address."""
    return "02:42:" + _socket.inet_aton(address).hex(":")


def link_name(container_id: str) -> str:
    """A name for the link's end on the host (at most 15 bytes): an earlier one of this container may be dying still."""
    return f"{_LINK}{container_id[:8]}{os.urandom(2).hex()}"


def is_link_name(name: str) -> bool:
    """Whether ``link_name`` may have given it."""
    return len(name) == len(_LINK) + 12 and name.startswith(_LINK) and _HEX.issuperset(name[len(_LINK) :])


def _candidates(directory: str, gateway: str, prefix_len: int) -> Iterator[int]:
    """Free addresses of the network, as numbers, each no longer leased when it is given."""
    own = int.from_bytes(_socket.inet_aton(gateway), "big")
    first = own & ~((1 << (32 - prefix_len)) - 1)
    last = first + (1 << (32 - prefix_len)) - 1
    taken: list[int] = []
    for name in os.listdir(directory):
        try:
            taken.append(int.from_bytes(_socket.inet_aton(name), "big"))
        except OSError:
            continue
    taken.sort()
    for number in taken[:_PROBES]:
        if first < number < last and _reclaim(directory, number):
            yield number
    present = {*taken, own}
    for number in range(first + 1, last):
        if number not in present:
            yield number
    for number in taken[_PROBES:]:
        if first < number < last and _reclaim(directory, number):
            yield number


def _reclaim(directory: str, number: int) -> bool:
    """Remove a lease whose owner is gone. A file that cannot be read was being written by one who died."""
    path = f"{directory}/{_socket.inet_ntoa(number.to_bytes(4, 'big'))}"
    try:
        with open(path, "rb") as file:
            lock_path = json.loads(file.read())["lock"]
        held = locks.is_held(lock_path)
    except (OSError, ValueError, KeyError, TypeError):
        held = False
    if held:
        return False
    release(path)
    return True


def _write_new(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
