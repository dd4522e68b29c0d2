"""Beside the firewalls of others: an accept of one's own never beats their drop, so minidock's rules go into theirs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from minidock.kernel import nftables
from minidock.kernel.netlink_nft import DROP, FORWARD, Nft

Exchange = Callable[..., str]
OURS = ["minidock: to minidock0", "minidock: from minidock0"]


def base(table: str, chain: str, *, family: str = "ip", policy: str = "accept", prio: int = 0) -> list[dict[str, Any]]:
    """A forward chain as others make it."""
    return [
        {"add": {"table": {"family": family, "name": table}}},
        {
            "add": {
                "chain": {
                    "family": family,
                    "table": table,
                    "name": chain,
                    "type": "filter",
                    "hook": "forward",
                    "prio": prio,
                    "policy": policy,
                }
            }
        },
    ]


def rule(table: str, chain: str, *expressions: dict[str, Any], family: str = "ip") -> dict[str, Any]:
    return {"add": {"rule": {"family": family, "table": table, "chain": chain, "expr": list(expressions)}}}


def comments(table: str, chain: str) -> list[str]:
    with Nft() as nft:
        (found,) = [c for c in nft.chains() if (c.table, c.name) == (table, chain)]
        return [r.comment for r in nft.rules(found)]


def docker() -> None:
    """As dockerd leaves it: policy drop, DOCKER-USER first."""
    nftables.run(
        [
            *base("filter", "FORWARD", policy="drop"),
            {"add": {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}}},
            rule("filter", "DOCKER-USER", {"counter": None}, {"return": None}),
            rule("filter", "FORWARD", {"counter": None}, {"jump": {"target": "DOCKER-USER"}}),
        ]
    )


def firewalld() -> None:
    """As firewalld has it: policy accept, and a reject of everything at the end."""
    established = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}}
    reject = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
    nftables.run(
        [
            *base("firewalld", "filter_FORWARD", family="inet", prio=10),
            rule("firewalld", "filter_FORWARD", established, {"accept": None}, family="inet"),
            rule("firewalld", "filter_FORWARD", {"counter": None}, reject, family="inet"),
        ]
    )


def ufw() -> None:
    nftables.run(base("filter", "FORWARD", policy="drop"))


FIREWALLS = {
    "docker": (docker, "filter", "DOCKER-USER"),
    "firewalld": (firewalld, "firewalld", "filter_FORWARD"),
    "ufw": (ufw, "filter", "FORWARD"),
}


@pytest.mark.parametrize("name", FIREWALLS)
def test_containers_get_past(host: Any, exchange_between: Exchange, name: str) -> None:
    install, table, chain = FIREWALLS[name]
    install()
    container, _ = host.container()
    assert exchange_between(container, host.outside, "192.0.2.1") == "192.0.2.2"
    assert comments(table, chain)[:2] == OURS
    host.outside.ip("route", "add", "10.90.0.0/16", "via", "192.0.2.2")
    assert exchange_between(host.outside, container, "10.90.0.2", seconds=1) == "", (
        "what nobody asked for stays outside"
    )


@pytest.mark.parametrize("name", FIREWALLS)
def test_without_the_rules_they_would_not(host: Any, exchange_between: Exchange, name: str) -> None:
    """What the rules are for: the firewall really stops a container that it does not know."""
    container, _ = host.container()
    FIREWALLS[name][0]()
    assert exchange_between(container, host.outside, "192.0.2.1", seconds=1) == ""
    host.network.ensure()
    assert exchange_between(container, host.outside, "192.0.2.1") == "192.0.2.2", "each start repairs it"


def test_rules_are_put_once(host: Any) -> None:
    docker()
    firewalld()
    for _ in range(3):
        host.network.ensure()
        host.stamp.unlink()
    assert comments("filter", "DOCKER-USER") == [*OURS, ""]
    assert comments("filter", "FORWARD") == [""], "docker's own chain holds no rule of ours"
    assert comments("firewalld", "filter_FORWARD") == [*OURS, "", ""]


def test_firewall_that_was_reloaded_is_opened_again(host: Any) -> None:
    ufw()
    host.network.ensure()
    nftables.run([{"flush": {"chain": {"family": "ip", "table": "filter", "name": "FORWARD"}}}])
    host.network.ensure()
    assert comments("filter", "FORWARD") == OURS


def test_half_of_the_rules_is_not_enough(host: Any) -> None:
    ufw()
    host.network.ensure()
    with Nft() as nft:
        (chain,) = [c for c in nft.chains() if c.table == "filter"]
        handle = nft.rules(chain)[0].handle
    place = {"family": "ip", "table": "filter", "chain": "FORWARD"}
    nftables.run([{"delete": {"rule": {**place, "handle": handle}}}])
    host.network.ensure()
    assert set(comments("filter", "FORWARD")) == set(OURS)


def test_chains_that_drop_nothing_are_left_alone(host: Any) -> None:
    established = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}
    nftables.run(
        [
            *base("other", "open", family="inet"),
            rule("other", "open", established, {"drop": None}, family="inet"),
            *base("other6", "closed", family="ip6", policy="drop"),
        ]
    )
    host.network.ensure()
    assert comments("other", "open") == [""]
    assert comments("other6", "closed") == [], "IPv6 is not minidock's here"


def test_uninstall_takes_only_our_rules_out(host: Any) -> None:
    docker()
    firewalld()
    before = nftables.run([{"list": {"ruleset": None}}])
    host.network.ensure()
    host.network.uninstall()
    assert nftables.run([{"list": {"ruleset": None}}]) == before


def test_chain_that_cannot_be_changed_is_a_warning(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ufw()
    real = nftables.run

    def refuse(commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if any("insert" in command for command in commands):
            raise OSError(22, "nftables: Operation not permitted")
        return real(commands)

    monkeypatch.setattr(nftables, "run", refuse)
    host.network.ensure()
    assert "ip filter FORWARD drops what containers send" in host.messages.read_text()
    monkeypatch.undo()
    host.network.ensure()
    assert comments("filter", "FORWARD") == OURS, "the next start tries again"


def test_iptables_can_still_list_its_chains(host: Any) -> None:
    """iptables over nftables gives up on a table that holds what it cannot express."""
    if not shutil.which("iptables-nft"):
        pytest.skip("iptables-nft is not installed")

    def iptables(*arguments: str) -> str:
        done = subprocess.run(["iptables-nft", *arguments], check=True, capture_output=True, text=True)
        assert "incompatible" not in done.stdout + done.stderr
        return done.stdout

    iptables("-P", "FORWARD", "DROP")
    iptables("-N", "DOCKER-USER")
    iptables("-A", "DOCKER-USER", "-j", "RETURN")
    iptables("-I", "FORWARD", "-j", "DOCKER-USER")
    host.network.ensure()
    listed = iptables("-S", "DOCKER-USER").splitlines()
    assert listed[1:] == [
        '-A DOCKER-USER -o minidock0 -m comment --comment "minidock: to minidock0" -j ACCEPT',
        '-A DOCKER-USER -i minidock0 -m comment --comment "minidock: from minidock0" -j ACCEPT',
        "-A DOCKER-USER -j RETURN",
    ]
    iptables("-A", "DOCKER-USER", "-s", "198.51.100.1", "-j", "DROP")
    host.network.uninstall()
    assert "minidock" not in iptables("-S")


def test_what_netlink_reads(host: Any) -> None:
    docker()
    with Nft() as nft:
        first = nft.generation()
        chains = {chain.name: chain for chain in nft.chains()}
        assert (chains["FORWARD"].hook, chains["FORWARD"].policy, chains["FORWARD"].priority) == (FORWARD, DROP, 0)
        assert chains["FORWARD"].type == "filter"
        assert (chains["DOCKER-USER"].hook, chains["DOCKER-USER"].policy) == (None, None)
        assert [r.drops_all for r in nft.rules(chains["FORWARD"])] == [False]
        nftables.run([rule("filter", "FORWARD", {"counter": None}, {"drop": None})])
        assert [r.drops_all for r in nft.rules(chains["FORWARD"])] == [False, True]
        assert nft.generation() != first


def test_nftables_says_what_is_wrong() -> None:
    with pytest.raises(OSError, match=r"nftables: .*(No such file|table)"):
        nftables.run([rule("no-such-table", "x", {"accept": None})])
