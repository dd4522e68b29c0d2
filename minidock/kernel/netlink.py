"""A small rtnetlink client for the way of a container's start (rtnetlink(7), netlink(7)).

It makes, finds and configures links in the caller's network namespace. Everything else about links is pyroute2's
(``kernel.bridge``): its import alone costs more than a whole start may.
"""

from __future__ import annotations

import _socket
import errno
import struct
from typing import NamedTuple

from minidock.kernel.netlink_socket import (
    NLA_F_NESTED,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Netlink,
    attribute,
    attributes,
    nested,
    text_attribute,
)

NETLINK_ROUTE = 0

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_NET_NS_FD = 16, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 3, 0, 1

IFF_UP = 1
IF_OPER_UP = 6
_AF_INET = 2

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")


class Link(NamedTuple):
    """A network interface: ``flags`` as in IFF_*, ``mtu`` in bytes, ``master`` the index of its bridge or 0.

    ``state`` is the operational state (RFC 2863, IF_OPER_*).
    """

    index: int  # type: ignore[assignment]
    name: str
    flags: int
    mtu: int
    address: str
    master: int
    state: int = 0

    @property
    def up(self) -> bool:
        """Set up by the administrator; whether there is a carrier is another matter."""
        return bool(self.flags & IFF_UP)

    @property
    def passing(self) -> bool:
        """Packets pass: the carrier is there, and the kernel's worker has taken note of it (net/core/link_watch.c)."""
        return self.state == IF_OPER_UP


class Route(NamedTuple):
    """An IPv4 route: destination "0.0.0.0" with ``prefix_len`` 0 is the default; ``link`` an index, 0 for none."""

    destination: str
    prefix_len: int
    link: int


def veth_message(name: str, peer: str, *, master: int, peer_netns_fd: int, mac: str, mtu: int) -> Message:
    """Make a veth pair: ``name`` here, up and in the bridge ``master``; ``peer`` in the other namespace, down.

    ``mac`` is the peer's, ``mtu`` (bytes) both ends'.
    """
    far = _IFINFO.pack(0, 0, 0, 0, 0) + b"".join(
        (
            text_attribute(IFLA_IFNAME, peer),
            attribute(IFLA_ADDRESS, _mac_bytes(mac)),
            attribute(IFLA_MTU, _U32.pack(mtu)),
            attribute(IFLA_NET_NS_FD, _U32.pack(peer_netns_fd)),
        )
    )
    payload = _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + b"".join(
        (
            text_attribute(IFLA_IFNAME, name),
            attribute(IFLA_MTU, _U32.pack(mtu)),
            attribute(IFLA_MASTER, _U32.pack(master)),
            nested(
                IFLA_LINKINFO,
                text_attribute(IFLA_INFO_KIND, "veth"),
                nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER | NLA_F_NESTED, far)),
            ),
        )
    )
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload)


def up_message(index: int) -> Message:
    """Set the link up."""
    return Message(RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP))


def master_message(index: int, master: int) -> Message:
    """Make the link a port of the bridge ``master``."""
    payload = _IFINFO.pack(0, 0, index, 0, 0) + attribute(IFLA_MASTER, _U32.pack(master))
    return Message(RTM_NEWLINK, 0, payload)


def delete_message(index: int) -> Message:
    """Delete the link."""
    return Message(RTM_DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0))


def address_message(index: int, address: str, prefix_len: int) -> Message:
    """Give the link an IPv4 address, with the network's last address for broadcasts."""
    local = _ip_bytes(address)
    host_bits = (1 << (32 - prefix_len)) - 1
    broadcast = (int.from_bytes(local, "big") | host_bits).to_bytes(4, "big")
    payload = _IFADDR.pack(_AF_INET, prefix_len, 0, RT_SCOPE_UNIVERSE, index) + b"".join(
        (attribute(IFA_LOCAL, local), attribute(IFA_ADDRESS, local), attribute(IFA_BROADCAST, broadcast))
    )
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, payload)


def default_route_message(gateway: str) -> Message:
    """The default IPv4 route."""
    payload = _ROUTE.pack(_AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, payload + attribute(RTA_GATEWAY, _ip_bytes(gateway)))


class Rtnl(Netlink):
    """Links, addresses and routes of the network namespace in which it was opened. All methods raise OSError."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE, strict=True)

    def __enter__(self) -> Rtnl:
        return self

    def link(self, name: str) -> Link | None:
        """The link of that name, or None."""
        message = Message(RTM_GETLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + text_attribute(IFLA_IFNAME, name))
        try:
            return _link(self.request(message, subject=name)[0])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def link_index(self, name: str) -> int:
        """The index of the link of that name, or 0."""
        link = self.link(name)
        return link.index if link else 0

    def links(self) -> list[Link]:
        """All links."""
        return [_link(data) for _, data in self.dump(Message(RTM_GETLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0)))]

    def set_up(self, index: int) -> None:
        """Set a link up."""
        self.request(up_message(index))

    def set_master(self, index: int, master: int) -> None:
        """Make a link a port of the bridge ``master``."""
        self.request(master_message(index, master))

    def add_veth(self, name: str, peer: str, *, master: int, peer_netns_fd: int, mac: str, mtu: int) -> None:
        """Make a veth pair in one message, its peer in the namespace of ``peer_netns_fd`` (``veth_message``)."""
        message = veth_message(name, peer, master=master, peer_netns_fd=peer_netns_fd, mac=mac, mtu=mtu)
        self.request(message, subject=name)

    def delete_link(self, index: int) -> None:
        """Delete a link; the kernel takes some 50 ms."""
        self.request(delete_message(index))

    def add_address(self, index: int, address: str, prefix_len: int) -> None:
        """Give a link an IPv4 address."""
        self.request(address_message(index, address, prefix_len), subject=address)

    def add_route(self, gateway: str) -> None:
        """Set the default IPv4 route."""
        self.request(default_route_message(gateway), subject=gateway)

    def configure(self, index: int, address: str, prefix_len: int, gateway: str) -> None:
        """Set loopback and the link up with its address and the default route, in one message to the kernel."""
        self.request(
            up_message(1),
            address_message(index, address, prefix_len),
            up_message(index),
            default_route_message(gateway),
            subject=address,
        )

    def addresses(self, index: int) -> list[tuple[str, int]]:
        """The IPv4 addresses of a link with their prefix lengths."""
        found = []
        for kind, data in self.dump(Message(RTM_GETADDR, 0, _IFADDR.pack(_AF_INET, 0, 0, 0, index))):
            _, prefix_len, _, _, link = _IFADDR.unpack_from(data)
            members = attributes(data[_IFADDR.size :])
            local = members.get(IFA_LOCAL) or members.get(IFA_ADDRESS)
            if kind == RTM_NEWADDR and link == index and local:
                found.append((_ip_text(local), prefix_len))
        return found

    def routes(self) -> list[Route]:
        """The IPv4 routes of the main table."""
        found = []
        request = _ROUTE.pack(_AF_INET, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0)
        for _, data in self.dump(Message(RTM_GETROUTE, 0, request + attribute(RTA_TABLE, _U32.pack(RT_TABLE_MAIN)))):
            prefix_len, table = data[1], data[4]
            members = attributes(data[_ROUTE.size :])
            if table != RT_TABLE_MAIN:
                continue
            destination = _ip_text(members.get(RTA_DST, bytes(4)))
            link = _U32.unpack(members[RTA_OIF])[0] if RTA_OIF in members else 0
            found.append(Route(destination, prefix_len, link))
        return found


def _link(data: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(data)
    members = attributes(data[_IFINFO.size :])
    return Link(
        index=index,
        name=members[IFLA_IFNAME].rstrip(b"\0").decode(),
        flags=flags,
        mtu=_U32.unpack(members.get(IFLA_MTU, bytes(4)))[0],
        address=members.get(IFLA_ADDRESS, b"").hex(":"),
        master=_U32.unpack(members.get(IFLA_MASTER, bytes(4)))[0],
        state=members.get(IFLA_OPERSTATE, bytes(1))[0],
    )


def _mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ip_bytes(text: str) -> bytes:
    return _socket.inet_aton(text)


def _ip_text(data: bytes) -> str:
    return _socket.inet_ntoa(data)
