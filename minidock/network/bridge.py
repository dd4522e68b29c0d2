"""The default network: the bridge minidock0, NAT to the outside, and a lease of an address for each container."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import NetworkError, StoreError
from minidock.kernel.bridge import read_parameter, write_parameter
from minidock.kernel.netlink import Link, Rtnl
from minidock.network import leases
from minidock.network.firewall import Firewall
from minidock.network.steps import ConfigureVeth, ConnectVeth, LoopbackUp
from minidock.store import locks

if TYPE_CHECKING:
    from minidock.log import Log
    from minidock.model.steps import Step
    from minidock.network.leases import Lease

NAME = "minidock0"
PREFIX_LEN = 16
# One of these networks that no route of the host overlaps becomes the bridge's.
SUBNETS = tuple(f"10.{number}.0.0" for number in range(90, 100))
_IP_FORWARD = "net/ipv4/ip_forward"
_MTU = 1500


class Bridge(NamedTuple):
    """A bridge that is up: its index, its own address (the containers' gateway), the network's length, the MTU."""

    name: str
    index: int  # type: ignore[assignment]
    gateway: str
    prefix_len: int
    mtu: int

    @property
    def subnet(self) -> str:
        return f"{network_of(self.gateway, self.prefix_len)}/{self.prefix_len}"


class BridgeNetwork:
    """The bridge and its leases.

    ``state_dir`` keeps the chosen network (bridge.json) over reboots; ``lease_dir`` is volatile and the same for all
    data roots of the host. Methods raise NetworkError.
    """

    __slots__ = ("_lease_dir", "_log", "_name", "_state_dir")

    def __init__(self, *, state_dir: str, log: Log, lease_dir: str = "/run/minidock/net", name: str = NAME) -> None:
        self._state_dir = state_dir
        self._lease_dir = lease_dir
        self._log = log
        self._name = name

    def ensure(self) -> Bridge:
        """The bridge, made if it is missing, with forwarding on and the firewall open for it.

        When all is as it was, this costs half a millisecond. An existing bridge's address wins over any other choice.
        """
        try:
            bridge = self._present() or self._make()
            if read_parameter(_IP_FORWARD) != "1":
                write_parameter(_IP_FORWARD, "1")
        except OSError as error:
            raise NetworkError(
                f"cannot set up the bridge {self._name}: {error.strerror}"
                + (f" ({error.filename})" if error.filename else ""),
                hint="--network none and --network host need no bridge",
            ) from None
        self._firewall(bridge).ensure(self._log)
        return bridge

    def foreseen(self) -> Bridge:
        """The bridge as ``ensure`` would give it, with nothing made or kept; its index is 0 where it is missing."""
        try:
            present = self._present()
            if present:
                return present
            subnet, mtu = self._choose(keep=False)
        except OSError as error:
            raise NetworkError(f"cannot look at the host's links: {error.strerror}") from None
        return Bridge(self._name, 0, _first_host(subnet), PREFIX_LEN, mtu)

    def lease(self, bridge: Bridge, container_id: str, *, root: str, lock_path: str) -> Lease:
        """Lease an address on ``bridge`` for whoever holds the flock of ``lock_path``: see ``leases.take``."""
        try:
            return leases.take(
                f"{self._lease_dir}/{bridge.name}",
                gateway=bridge.gateway,
                prefix_len=bridge.prefix_len,
                container_id=container_id,
                root=root,
                lock_path=lock_path,
            )
        except OSError as error:
            raise NetworkError(f"cannot lease an address on {bridge.name}: {error.strerror}") from None

    def release(self, path: str) -> None:
        """Give the lease ``path`` back; one that is gone is no error."""
        leases.release(path)

    def attach_steps(self, bridge: Bridge, lease: Lease) -> tuple[Step, ...]:
        """What connects a container; both steps are the parent's and need the child's PID alone."""
        return (
            ConnectVeth(bridge.name, bridge.index, lease.link, lease.mac, bridge.mtu),
            ConfigureVeth(bridge.name, lease.link, lease.address, bridge.prefix_len, bridge.gateway),
        )

    def loopback_step(self) -> Step:
        """What a container without a network gets."""
        return LoopbackUp()

    def uninstall(self) -> None:
        """Remove the bridge, minidock's table and its rules in foreign chains."""
        from minidock.kernel.bridge import remove_link

        os.makedirs(self._lease_dir, 0o700, exist_ok=True)
        with locks.exclusive(f"{self._lease_dir}/{self._name}.lock"):
            try:
                remove_link(self._name)
            except OSError as error:
                raise NetworkError(f"cannot remove the bridge {self._name}: {error.strerror}") from None
            self._firewall_of("0.0.0.0/0").remove()

    def _present(self) -> Bridge | None:
        """The bridge if it is up with an address. It is set up last, so an unfinished one is not taken for whole."""
        with Rtnl() as route:
            link = route.link(self._name)
            if link is None or not link.up:
                return None
            addresses = route.addresses(link.index)
        if not addresses:
            return None
        address, prefix_len = addresses[0]
        return Bridge(self._name, link.index, address, prefix_len, link.mtu)

    def _make(self) -> Bridge:
        from minidock.kernel.bridge import make_bridge

        os.makedirs(self._lease_dir, 0o700, exist_ok=True)
        with locks.exclusive(f"{self._lease_dir}/{self._name}.lock"):
            bridge = self._present()
            if bridge:
                return bridge
            subnet, mtu = self._choose(keep=True)
            gateway = _first_host(subnet)
            make_bridge(self._name, mac=leases.mac_of(gateway), address=gateway, prefix_len=PREFIX_LEN, mtu=mtu)
            bridge = self._present()
            if bridge is None:
                raise OSError(0, "it vanished while it was being set up")
            _reconnect(bridge)
        return bridge

    def _choose(self, *, keep: bool) -> tuple[str, int]:
        """The network's first address, an earlier choice first, and the MTU of the way out; ``keep`` it for later."""
        with Rtnl() as route:
            routes, links = route.routes(), route.links()
        own = next((link.index for link in links if link.name == self._name), -1)
        used = [(r.destination, r.prefix_len) for r in routes if r.prefix_len and r.link != own]
        kept = self._kept()
        free = [subnet for subnet in (kept, *SUBNETS) if subnet and not overlaps(used, subnet, PREFIX_LEN)]
        if not free:
            raise NetworkError(
                f"no network is free for {self._name}: routes of the host overlap 10.90.0.0/16 to 10.99.0.0/16",
                hint=f"make the bridge {self._name} yourself with an address of your choice; minidock will use it",
            )
        if keep and free[0] != kept:
            self._keep(free[0])
        outwards = {r.link for r in routes if not r.prefix_len}
        return free[0], _smallest_mtu(links, outwards)

    def _kept(self) -> str:
        try:
            with open(f"{self._state_dir}/bridge.json", "rb") as file:
                subnet = json.loads(file.read())["subnet"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return subnet.partition("/")[0] if subnet in {f"{known}/{PREFIX_LEN}" for known in SUBNETS} else ""

    def _keep(self, subnet: str) -> None:
        from minidock.store.files import write_atomic

        content = json.dumps({"name": self._name, "subnet": f"{subnet}/{PREFIX_LEN}"}, indent=2)
        try:
            os.makedirs(self._state_dir, 0o700, exist_ok=True)
            write_atomic(f"{self._state_dir}/bridge.json", f"{content}\n".encode(), sync=True)
        except (OSError, StoreError) as error:
            # The network works all the same; it may be another after the next boot.
            self._log.warning(f"cannot remember the network of {self._name}: {error}")

    def _firewall(self, bridge: Bridge) -> Firewall:
        return self._firewall_of(bridge.subnet)

    def _firewall_of(self, subnet: str) -> Firewall:
        return Firewall(self._name, subnet, f"{self._lease_dir}/{self._name}.ruleset")


def network_of(address: str, prefix_len: int) -> str:
    """The first address of the IPv4 network that ``address`` is in."""
    import _socket

    mask = ~((1 << (32 - prefix_len)) - 1) & 0xFFFFFFFF
    number = int.from_bytes(_socket.inet_aton(address), "big") & mask
    return _socket.inet_ntoa(number.to_bytes(4, "big"))


def overlaps(networks: list[tuple[str, int]], address: str, prefix_len: int) -> bool:
    """Whether any of ``networks`` (address, length) shares an address with ``address``/``prefix_len``."""
    return any(
        network_of(other, min(length, prefix_len)) == network_of(address, min(length, prefix_len))
        for other, length in networks
    )


def _reconnect(bridge: Bridge) -> None:
    """Running containers have lost their place when somebody deleted the bridge: their links come back to it."""
    with Rtnl() as route:
        for link in route.links():
            if leases.is_link_name(link.name) and not link.master:
                # One that cannot be reconnected has just gone, with its container.
                with contextlib.suppress(OSError):
                    route.set_master(link.index, bridge.index)


def _first_host(subnet: str) -> str:
    return subnet.rpartition(".")[0] + ".1"


def _smallest_mtu(links: list[Link], outwards: set[int]) -> int:
    """What fits through every way out: tunnels and clouds often carry less than 1500 bytes."""
    return min((link.mtu for link in links if link.index in outwards and link.mtu), default=_MTU)
