"""The small rtnetlink encoder against the kernel."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from minidock.kernel import bridge
from minidock.kernel.netlink import Rtnl


def test_bridge_is_made_whole_and_twice_is_once(host: Any) -> None:
    for _ in range(2):
        bridge.make_bridge("br-test", mac="02:42:0a:5a:00:01", address="10.90.0.1", prefix_len=16, mtu=1400)
    with Rtnl() as route:
        link = route.link("br-test")
        assert link is not None
        assert (link.up, link.mtu, link.address, link.master) == (True, 1400, "02:42:0a:5a:00:01", 0)
        assert route.addresses(link.index) == [("10.90.0.1", 16)]
        assert route.link_index("br-test") == link.index
        assert link in route.links()
    assert bridge.read_parameter("net/ipv6/conf/br-test/disable_ipv6") in {"1", ""}
    assert bridge.read_parameter("net/ipv4/conf/br-test/accept_redirects") == "0"
    bridge.remove_link("br-test")
    bridge.remove_link("br-test")
    with Rtnl() as route:
        assert route.link("br-test") is None
        assert route.link_index("br-test") == 0


def test_half_made_bridge_is_finished(host: Any) -> None:
    os.system("ip link add br-test type bridge")
    bridge.make_bridge("br-test", mac="02:42:0a:5a:00:01", address="10.90.0.1", prefix_len=16, mtu=1400)
    with Rtnl() as route:
        link = route.link("br-test")
        assert link is not None
        assert link.up
        assert route.addresses(link.index) == [("10.90.0.1", 16)]


def test_routes(host: Any) -> None:
    with Rtnl() as route:
        up = route.link_index("up0")
        assert {tuple(r) for r in route.routes()} == {("0.0.0.0", 0, up), ("192.0.2.0", 24, up)}


def test_addresses_are_those_of_one_link(host: Any) -> None:
    with Rtnl() as route:
        assert route.addresses(1) == [("127.0.0.1", 8)]
        assert route.addresses(route.link_index("up0")) == [("192.0.2.2", 24)]


def test_pair_is_made_configured_and_dies_with_its_namespace(host: Any) -> None:
    bridge_index = host.network.ensure().index
    container, address = host.container()
    with Rtnl() as route:
        (port,) = [link for link in route.links() if link.master == bridge_index]
        assert port.name.startswith("md01234567")
        assert port.up
        assert port.mtu == 1400
    with container.entered(), Rtnl() as route:
        inside = route.link("eth0")
        assert inside is not None
        assert (inside.up, inside.mtu, inside.address) == (True, 1400, "02:42:0a:5a:00:02")
        assert route.addresses(inside.index) == [(address, 16)]
        assert route.link("lo").up  # type: ignore[union-attr]
        assert ("0.0.0.0", 0, inside.index) in {tuple(r) for r in route.routes()}
        assert bridge.read_parameter("net/ipv6/conf/eth0/disable_ipv6") in {"1", ""}
    assert "eth0" not in container.ip("-6", "addr")
    container.close()
    host.forget(container)
    deadline = time.monotonic() + 10
    with Rtnl() as route:
        while route.link(port.name) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert route.link(port.name) is None, "the kernel's worker takes the link away"
        assert route.link("minidock0").mtu == 1400, "a bridge without ports keeps its MTU"  # type: ignore[union-attr]


def test_errors_name_their_subject(host: Any) -> None:
    with Rtnl() as route:
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        with pytest.raises(OSError, match="md0") as caught:
            route.add_veth("md0", "eth0", master=9999, peer_netns_fd=fd, mac="02:42:0a:5a:00:02", mtu=1500)
        assert caught.value.filename == "md0"
        os.close(fd)
        with pytest.raises(FileExistsError):
            route.add_address(1, "127.0.0.1", 8)
        with pytest.raises(OSError, match="No such device"):
            route.set_up(9999)
        # The socket is good for more after an error.
        assert route.link_index("lo") == 1


def test_later_messages_of_a_batch_are_tried(host: Any) -> None:
    with Rtnl() as route:
        up = route.link_index("up0")
        with pytest.raises(OSError, match="exists") as caught:
            route.configure(up, "192.0.2.2", 24, "192.0.2.1")
        assert caught.value.errno == errno.EEXIST
        assert route.addresses(up) == [("192.0.2.2", 24)]


def test_list_longer_than_a_message(host: Any) -> None:
    batch = "".join(f"addr add 10.1.{number // 250}.{number % 250 + 1}/32 dev lo\n" for number in range(1500))
    pipe = os.popen("ip -batch -", "w")
    pipe.write(batch)
    pipe.close()
    with Rtnl() as route:
        assert len(route.addresses(1)) == 1501


def test_setting_a_parameter(host: Any) -> None:
    bridge.write_parameter("net/ipv4/ip_forward", "0")
    assert bridge.read_parameter("net/ipv4/ip_forward") == "0"
    bridge.write_parameter("net/ipv4/no_such_parameter", "1")
    assert bridge.read_parameter("net/ipv4/no_such_parameter") == ""
    with pytest.raises(OSError, match="ip_forward") as caught:
        bridge.write_parameter("net/ipv4/ip_forward", "many")
    assert caught.value.filename == "/proc/sys/net/ipv4/ip_forward"


def test_the_first_packet_passes(host: Any, exchange_between: Any) -> None:
    """The bridge opens its port by a worker of the kernel; what a container sent before would wait for a second."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        for _ in range(20):
            container, address = host.container()
            with Rtnl() as route:
                assert [link.name for link in route.links() if link.up and not link.passing] == ["lo"]
            assert exchange_between(container, None, "10.90.0.1") == address
    finally:
        for process in busy:
            process.kill()
            process.wait()
