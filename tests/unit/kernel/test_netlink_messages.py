"""Every message of the small encoder, as pyroute2's decoder reads it."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from minidock.kernel import netlink, netlink_nft
from minidock.kernel.netlink_socket import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attribute,
    attribute_list,
    attributes,
    nested,
    text_attribute,
)


def decode(kind: Any, message: Message) -> Any:
    length = 16 + len(message.payload)
    decoded = kind(struct.pack("=IHHII", length, message.type, message.flags, 7, 0) + message.payload)
    decoded.decode()
    assert decoded["header"]["length"] == length
    assert length % 4 == 0
    return decoded


def test_veth_with_its_peer_in_another_namespace() -> None:
    message = netlink.veth_message("md0123abcd", "eth0", master=9, peer_netns_fd=5, mac="02:42:0a:5a:00:02", mtu=1400)
    link = decode(ifinfmsg, message)
    assert (message.type, message.flags) == (16, NLM_F_CREATE | NLM_F_EXCL)
    assert (link["index"], link["flags"] & 1, link["change"] & 1) == (0, 1, 1)
    assert link.get_attr("IFLA_IFNAME") == "md0123abcd"
    assert link.get_attr("IFLA_MTU") == 1400
    assert link.get_attr("IFLA_MASTER") == 9
    info = link.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert peer["flags"] & 1 == 0, "the peer is set up with its address"
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_ADDRESS") == "02:42:0a:5a:00:02"
    assert peer.get_attr("IFLA_MTU") == 1400
    assert peer.get_attr("IFLA_NET_NS_FD") == 5


def test_link_up() -> None:
    message = netlink.up_message(3)
    link = decode(ifinfmsg, message)
    assert (message.type, message.flags) == (16, 0)
    assert (link["index"], link["flags"], link["change"]) == (3, 1, 1)


def test_master() -> None:
    message = netlink.master_message(3, 9)
    link = decode(ifinfmsg, message)
    assert (message.type, message.flags, link["index"], link["change"]) == (16, 0, 3, 0)
    assert link.get_attr("IFLA_MASTER") == 9


def test_delete_link() -> None:
    message = netlink.delete_message(12)
    assert message.type == 17
    assert decode(ifinfmsg, message)["index"] == 12


@pytest.mark.parametrize(
    ("address", "prefix_len", "broadcast"),
    [("10.90.1.2", 16, "10.90.255.255"), ("192.0.2.9", 24, "192.0.2.255"), ("192.0.2.9", 30, "192.0.2.11")],
)
def test_address(address: str, prefix_len: int, broadcast: str) -> None:
    message = netlink.address_message(4, address, prefix_len)
    decoded = decode(ifaddrmsg, message)
    assert message.type == 20
    assert (decoded["family"], decoded["prefixlen"], decoded["index"], decoded["scope"]) == (2, prefix_len, 4, 0)
    assert decoded.get_attr("IFA_LOCAL") == decoded.get_attr("IFA_ADDRESS") == address
    assert decoded.get_attr("IFA_BROADCAST") == broadcast


def test_default_route() -> None:
    message = netlink.default_route_message("10.90.0.1")
    route = decode(rtmsg, message)
    assert message.type == 24
    assert (route["family"], route["dst_len"], route["table"], route["type"], route["scope"]) == (2, 0, 254, 1, 0)
    assert route.get_attr("RTA_GATEWAY") == "10.90.0.1"
    assert route.get_attr("RTA_DST") is None


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert list(attribute_list(data)) == pairs
    assert attributes(data) == dict(pairs)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_without_harm(data: bytes) -> None:
    assert all(kind < 0x4000 for kind, _ in attribute_list(data))


def test_error_carries_the_kernel_s_words() -> None:
    words = text_attribute(1, "Something is wrong")
    capped = struct.pack("=i", -22) + bytes(16) + words
    error = netlink.Netlink.failure(capped, 0x300, "md0")
    assert error is not None
    assert (error.errno, error.filename) == (22, "md0")
    assert error.strerror == "Invalid argument (Something is wrong)"
    assert netlink.Netlink.failure(struct.pack("=i", 0) + bytes(16), 0x100, "md0") is None


def rule_bytes(*expressions: bytes, comment: str = "") -> bytes:
    userdata = bytes([0, len(comment) + 1]) + comment.encode() + b"\0" if comment else b""
    return struct.pack(">BBH", 2, 0, 0) + b"".join(
        (
            text_attribute(1, "filter"),
            text_attribute(2, "FORWARD"),
            attribute(3, (9).to_bytes(8, "big")),
            nested(4, *expressions),
            attribute(7, userdata),
        )
    )


def expression(name: str, *data: bytes) -> bytes:
    return nested(1, text_attribute(1, name), nested(2, *data))


def verdict(code: int) -> bytes:
    return expression("immediate", nested(2, nested(2, attribute(1, code.to_bytes(4, "big", signed=True)))))


@pytest.mark.parametrize(
    ("expressions", "drops"),
    [
        ([verdict(0)], True),
        ([expression("counter"), verdict(0)], True),
        ([expression("counter"), expression("log"), expression("reject")], True),
        ([expression("counter"), expression("target", text_attribute(1, "REJECT"))], True),
        ([expression("target", text_attribute(1, "LOG"))], False),
        ([verdict(1)], False),
        ([verdict(-3)], False),
        ([expression("meta"), expression("cmp"), verdict(0)], False),
        ([expression("ct"), expression("reject")], False),
        ([expression("limit"), verdict(0)], False),
        ([], False),
    ],
)
def test_rules_that_drop_everything(expressions: list[bytes], drops: bool) -> None:
    rule = netlink_nft._rule(rule_bytes(*expressions, comment="minidock: x"))
    assert rule == netlink_nft.Rule(9, "minidock: x", drops)


def test_rule_without_comment() -> None:
    assert netlink_nft._rule(rule_bytes(verdict(0))).comment == ""
