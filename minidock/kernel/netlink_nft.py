"""Reading nftables over netlink: is a ruleset still as it was, and which chains would drop what is forwarded.

include/uapi/linux/netfilter/nf_tables.h. Rules are written through libnftables (``kernel.nftables``); this is what
every start can afford to look at. Rules of the legacy iptables (xtables without nftables) are not visible here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from minidock.kernel.netlink_socket import Message, Netlink, attribute_list, attributes, text_attribute

NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8
_GET_CHAIN, _GET_RULE, _NEW_GENERATION, _GET_GENERATION = 4, 7, 15, 16
_HEADER = struct.Struct(">BBH")

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
FORWARD = 2
DROP, ACCEPT = 0, 1

_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 3, 4, 7
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_IMMEDIATE_DATA, _DATA_VERDICT, _VERDICT_CODE = 2, 2, 1
_TARGET_NAME = 1
_GENERATION_ID = 1
_COMMENT = 0
# What a rule may hold and still meet every packet.
_WITHOUT_CONDITION = frozenset({"counter", "log", "immediate", "reject", "target"})


class Chain(NamedTuple):
    """A chain; ``hook`` and ``priority`` are None for one that is only jumped to, ``policy`` is DROP or ACCEPT."""

    family: str
    table: str
    name: str
    type: str
    hook: int | None
    priority: int | None
    policy: int | None


class Rule(NamedTuple):
    """A rule: its ``handle`` in the table, its comment or "", and whether it drops or rejects every packet it meets."""

    handle: int
    comment: str
    drops_all: bool


class Nft(Netlink):
    """The ruleset of the network namespace in which it was opened. Methods raise OSError."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def __enter__(self) -> Nft:
        return self

    def generation(self) -> int:
        """A number that changes with every change of the ruleset."""
        answer = self.request(_message(_GET_GENERATION, 0))
        return int.from_bytes(attributes(answer[0][_HEADER.size :])[_GENERATION_ID], "big")

    def chains(self) -> list[Chain]:
        """The chains of all families."""
        return [_chain(data) for _, data in self.dump(_message(_GET_CHAIN, 0))]

    def rules(self, chain: Chain) -> list[Rule]:
        """The rules of one chain in order."""
        number = next(number for number, name in FAMILIES.items() if name == chain.family)
        selector = text_attribute(_RULE_TABLE, chain.table) + text_attribute(_RULE_CHAIN, chain.name)
        return [_rule(data) for _, data in self.dump(_message(_GET_RULE, number, selector))]


def _message(kind: int, family: int, payload: bytes = b"") -> Message:
    return Message(_SUBSYSTEM | kind, 0, _HEADER.pack(family, 0, 0) + payload)


def _chain(data: bytes) -> Chain:
    family = data[0]
    members = attributes(data[_HEADER.size :])
    hook = attributes(members.get(_CHAIN_HOOK, b""))
    return Chain(
        family=FAMILIES.get(family, str(family)),
        table=_text(members[_CHAIN_TABLE]),
        name=_text(members[_CHAIN_NAME]),
        type=_text(members.get(_CHAIN_TYPE, b"")),
        hook=int.from_bytes(hook[_HOOK_NUMBER], "big") if _HOOK_NUMBER in hook else None,
        priority=int.from_bytes(hook[_HOOK_PRIORITY], "big", signed=True) if _HOOK_PRIORITY in hook else None,
        policy=int.from_bytes(members[_CHAIN_POLICY], "big") if _CHAIN_POLICY in members else None,
    )


def _rule(data: bytes) -> Rule:
    members = attributes(data[_HEADER.size :])
    expressions = [attributes(value) for _, value in attribute_list(members.get(_RULE_EXPRESSIONS, b""))]
    names = [_text(expression[_EXPRESSION_NAME]) for expression in expressions]
    final = set(names) <= _WITHOUT_CONDITION and any(map(_drops, names, expressions))
    return Rule(int.from_bytes(members[_RULE_HANDLE], "big"), _comment(members.get(_RULE_USERDATA, b"")), final)


def _drops(name: str, expression: dict[int, bytes]) -> bool:
    data = attributes(expression.get(_EXPRESSION_DATA, b""))
    if name == "immediate":
        verdict = attributes(attributes(data.get(_IMMEDIATE_DATA, b"")).get(_DATA_VERDICT, b""))
        return int.from_bytes(verdict.get(_VERDICT_CODE, b"\1"), "big") == DROP
    return name == "reject" or (name == "target" and _text(data.get(_TARGET_NAME, b"")) == "REJECT")


def _comment(userdata: bytes) -> str:
    """libnftnl keeps comments as (type, length, text) in the bytes that the kernel stores unread."""
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == _COMMENT:
            return _text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "replace")
