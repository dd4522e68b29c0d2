from __future__ import annotations

import json
from pathlib import Path

import pytest

from minidock.errors import NetworkError
from minidock.kernel.netlink import Link, Route
from minidock.log import Log
from minidock.network import bridge
from minidock.network.bridge import Bridge, BridgeNetwork
from minidock.network.leases import Lease


@pytest.mark.parametrize(
    ("address", "length", "network"),
    [
        ("10.90.3.4", 16, "10.90.0.0"),
        ("10.90.3.4", 24, "10.90.3.0"),
        ("10.90.3.4", 32, "10.90.3.4"),
        ("1.2.3.4", 0, "0.0.0.0"),
    ],
)
def test_network_of(address: str, length: int, network: str) -> None:
    assert bridge.network_of(address, length) == network


@pytest.mark.parametrize(
    ("routes", "overlap"),
    [
        ([], False),
        ([("10.91.0.0", 16)], False),
        ([("10.90.0.0", 16)], True),
        ([("10.90.7.0", 24)], True),
        ([("10.0.0.0", 8)], True),
        ([("10.64.0.0", 10)], True),
        ([("192.168.0.0", 16), ("10.90.255.255", 32)], True),
    ],
)
def test_overlaps(routes: list[tuple[str, int]], overlap: bool) -> None:
    assert bridge.overlaps(routes, "10.90.0.0", 16) is overlap


class Table:
    """The host's routes and links, as Rtnl would tell them."""

    def __init__(self, *routes: Route, mtu: int = 1400) -> None:
        self._routes = list(routes)
        self._links = [
            Link(1, "lo", 1, 65536, "", 0),
            Link(2, "up0", 1, mtu, "", 0),
            Link(7, "minidock0", 0, 9000, "", 0),
        ]

    def __call__(self) -> Table:
        return self

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def routes(self) -> list[Route]:
        return self._routes

    def links(self) -> list[Link]:
        return self._links


def choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *routes: Route, **options: int) -> tuple[str, int]:
    monkeypatch.setattr(bridge, "Rtnl", Table(*routes, **options))
    return BridgeNetwork(state_dir=str(tmp_path / "networks"), log=Log(), lease_dir=str(tmp_path))._choose(keep=True)


DEFAULT = Route("0.0.0.0", 0, 2)


def test_first_free_network_and_the_mtu_of_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(tmp_path, monkeypatch, DEFAULT, Route("10.90.0.0", 15, 2)) == ("10.92.0.0", 1400)
    assert json.loads((tmp_path / "networks/bridge.json").read_text()) == {
        "name": "minidock0",
        "subnet": "10.92.0.0/16",
    }


def test_choice_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(tmp_path, monkeypatch, Route("10.90.0.0", 16, 2))
    assert choose(tmp_path, monkeypatch)[0] == "10.91.0.0"
    assert choose(tmp_path, monkeypatch, Route("10.91.0.0", 16, 2))[0] == "10.90.0.0", "unless it is taken meanwhile"


def test_own_route_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(tmp_path, monkeypatch, Route("10.90.0.0", 16, 7))[0] == "10.90.0.0"


def test_without_a_way_out_the_mtu_is_ethernet_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(tmp_path, monkeypatch)[1] == 1500


@pytest.mark.parametrize("content", ["", "{", "[]", '{"subnet": 5}', '{"subnet": "0.0.0.0/0"}'])
def test_damaged_choice_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks/bridge.json").write_text(content)
    assert choose(tmp_path, monkeypatch)[0] == "10.90.0.0"


def test_no_network_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NetworkError, match="no network is free"):
        choose(tmp_path, monkeypatch, Route("10.0.0.0", 8, 2))


def test_steps_say_what_they_do(tmp_path: Path) -> None:
    network = BridgeNetwork(state_dir=str(tmp_path), log=Log())
    steps = network.attach_steps(
        Bridge("minidock0", 7, "10.90.0.1", 16, 1400), Lease("10.90.0.2", "02:42:0a:5a:00:02", "/x", "mdabc")
    )
    assert [step.describe() for step in steps] == [
        "veth mdabc on bridge minidock0; eth0 02:42:0a:5a:00:02 mtu 1400 in the container",
        "in the container: lo up, eth0 up with 10.90.0.2/16, default via 10.90.0.1",
    ]
    assert {(step.where, step.why) for step in steps} == {("parent", "network")}
    loopback = network.loopback_step()
    assert (loopback.where, loopback.describe()) == ("child", "lo up; no other link")


def test_subnet() -> None:
    assert Bridge("minidock0", 7, "10.92.0.1", 16, 1400).subnet == "10.92.0.0/16"
