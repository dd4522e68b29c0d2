"""The default network as a whole: made once, repaired, shared, removed; and packets that really pass."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import NetworkError
from minidock.kernel import bridge as links
from minidock.kernel import namespaces, nftables
from minidock.kernel.netlink import Rtnl
from minidock.kernel.netlink_nft import Nft
from minidock.log import Log
from minidock.network.bridge import BridgeNetwork

Exchange = Callable[..., str]


def ruleset() -> list[dict[str, Any]]:
    return nftables.run([{"list": {"ruleset": None}}])


def test_first_and_later_calls(host: Any) -> None:
    first = host.network.ensure()
    assert (first.name, first.gateway, first.prefix_len, first.mtu) == ("minidock0", "10.90.0.1", 16, 1400)
    assert first.subnet == "10.90.0.0/16"
    assert links.read_parameter("net/ipv4/ip_forward") == "1"
    with Nft() as nft:
        before = nft.generation()
        assert {(c.family, c.table, c.name) for c in nft.chains()} == {
            ("ip", "minidock", "postrouting"),
            ("ip", "minidock", "forward"),
        }
        assert host.network.ensure() == first
        assert nft.generation() == before, "nothing was changed again"


def test_what_was_taken_away_is_made_again(host: Any) -> None:
    host.network.ensure()
    whole = ruleset()
    nftables.run([{"flush": {"chain": {"family": "ip", "table": "minidock", "name": "postrouting"}}}])
    host.network.ensure()
    assert [sorted(item) for item in ruleset()] == [sorted(item) for item in whole]
    nftables.run([{"delete": {"table": {"family": "ip", "name": "minidock"}}}])
    links.write_parameter("net/ipv4/ip_forward", "0")
    host.network.ensure()
    assert len(ruleset()) == len(whole)
    assert links.read_parameter("net/ipv4/ip_forward") == "1"
    links.remove_link("minidock0")
    assert host.network.ensure().gateway == "10.90.0.1"
    os.system("ip link set minidock0 down")
    host.network.ensure()
    with Rtnl() as route:
        assert route.link("minidock0").up  # type: ignore[union-attr]


def test_existing_bridge_s_address_wins(host: Any) -> None:
    links.make_bridge("minidock0", mac="02:42:ac:1e:00:01", address="172.30.0.1", prefix_len=24, mtu=1300)
    bridge = host.network.ensure()
    assert (bridge.gateway, bridge.prefix_len, bridge.mtu, bridge.subnet) == ("172.30.0.1", 24, 1300, "172.30.0.0/24")
    container, address = host.container()
    assert address == "172.30.0.2"
    assert "172.30.0.1" in container.ip("route")


def test_network_in_use_is_avoided(host: Any) -> None:
    os.system("ip route add 10.90.128.0/17 via 192.0.2.1")
    assert host.network.ensure().gateway == "10.91.0.1"


def test_simultaneous_first_calls(host: Any) -> None:
    """Threads share the namespace of the thread that makes them."""
    with ThreadPoolExecutor(6) as pool:
        bridges = list(pool.map(lambda _: host.network.ensure(), range(6)))
    assert len(set(bridges)) == 1
    comments = [item["rule"].get("comment") for item in ruleset() if "rule" in item]
    assert comments == ["minidock0 10.90.0.0/16"] * 4


def test_container_reaches_the_gateway_and_the_outside_masqueraded(host: Any, exchange_between: Exchange) -> None:
    container, address = host.container()
    assert exchange_between(container, None, "10.90.0.1") == address
    assert exchange_between(container, host.outside, "192.0.2.1") == "192.0.2.2"


def test_containers_reach_each_other_under_their_own_addresses(host: Any, exchange_between: Exchange) -> None:
    first, first_address = host.container()
    second, second_address = host.container()
    assert exchange_between(first, second, second_address) == first_address


def test_outside_does_not_reach_a_container_unasked(host: Any, exchange_between: Exchange) -> None:
    container, address = host.container()
    host.outside.ip("route", "add", "10.90.0.0/16", "via", "192.0.2.2")
    assert exchange_between(host.outside, container, address, seconds=1) == ""


def test_two_data_roots_share_bridge_and_leases(host: Any, tmp_path: Path) -> None:
    other = BridgeNetwork(state_dir=str(tmp_path / "other"), lease_dir=str(tmp_path / "net"), log=Log())
    bridge = host.network.ensure()
    assert other.ensure() == bridge
    _, address = host.container()
    lease = other.lease(bridge, "fedcba9876543210", root="/y", lock_path=str(tmp_path / "none"))
    assert lease.address != address


def test_running_containers_come_back_to_a_bridge_that_was_deleted(host: Any, exchange_between: Exchange) -> None:
    container, address = host.container()
    os.system("ip link del minidock0")
    assert exchange_between(container, host.outside, "192.0.2.1", seconds=1) == ""
    other, other_address = host.container()
    assert exchange_between(container, host.outside, "192.0.2.1") == "192.0.2.2"
    assert exchange_between(container, other, other_address) == address


def test_forwarding_and_ruleset_come_back(host: Any, exchange_between: Exchange) -> None:
    container, _ = host.container()
    os.system("nft flush ruleset; echo 0 > /proc/sys/net/ipv4/ip_forward")
    assert exchange_between(container, host.outside, "192.0.2.1", seconds=1) == ""
    host.container()
    assert exchange_between(container, host.outside, "192.0.2.1") == "192.0.2.2"


def test_uninstall_leaves_nothing(host: Any) -> None:
    host.network.ensure()
    host.network.uninstall()
    assert ruleset() == []
    with Rtnl() as route:
        assert route.link("minidock0") is None
    assert not host.stamp.exists()
    host.network.uninstall()
    assert host.network.ensure().gateway == "10.90.0.1"


def test_loopback_alone(host: Any) -> None:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    try:
        host.network.loopback_step().execute(None)
        with Rtnl() as route:
            assert [(link.name, link.up) for link in route.links() if link.up] == [("lo", True)]
    finally:
        namespaces.setns(home, namespaces.CLONE_NEWNET)
        os.close(home)


def test_without_nftables_the_hint_names_other_networks(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "_LIBRARY", "libnftables.so.none")
    with pytest.raises(NetworkError, match="not installed") as caught:
        host.network.ensure()
    assert "--network none" in caught.value.hint


def test_without_privilege(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_route", lambda: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    with pytest.raises(NetworkError, match="cannot set up the bridge minidock0: Operation not permitted"):
        host.network.ensure()
