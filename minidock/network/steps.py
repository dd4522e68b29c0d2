"""The steps that give a container its place on a bridge, or its loopback alone."""

from __future__ import annotations

import os
import time
from typing import NamedTuple, Protocol

from minidock.kernel.bridge import write_parameter
from minidock.kernel.namespaces import CLONE_NEWNET, setns
from minidock.kernel.netlink import Rtnl

INSIDE = "eth0"
_LOOPBACK = 1
_PASSING_SECONDS = 1.0
_PASSING_PAUSE = 0.0002


class Context(Protocol):
    """What the steps of the parent are executed with: ``pid`` as the /proc at hand numbers it."""

    pid: int


class ConnectVeth(NamedTuple):
    """Make a veth pair: one end up in the bridge, the other born as eth0 in the container's network namespace."""

    bridge: str
    bridge_index: int
    link: str
    mac: str
    mtu: int
    where: str = "parent"
    why: str = "network"

    def describe(self) -> str:
        return f"veth {self.link} on bridge {self.bridge}; {INSIDE} {self.mac} mtu {self.mtu} in the container"

    def execute(self, context: Context) -> None:
        """Raises OSError naming the link."""
        fd = os.open(f"/proc/{context.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with Rtnl() as route:
                route.add_veth(
                    self.link, INSIDE, master=self.bridge_index, peer_netns_fd=fd, mac=self.mac, mtu=self.mtu
                )
            # A port of the bridge is no host on the containers' network.
            write_parameter(f"net/ipv6/conf/{self.link}/disable_ipv6", "1")
        finally:
            os.close(fd)


class ConfigureVeth(NamedTuple):
    """Give eth0 its address and route. The parent visits the namespace, so that the child's mounts go on meanwhile.

    Then it waits until the host's end, ``link``, and the bridge pass packets: a worker of the kernel opens the bridge's
    port, and a bridge that had no port, a little later. What comes before is dropped, and TCP and ARP try again only
    after a whole second.
    """

    bridge: str
    link: str
    address: str
    prefix_len: int
    gateway: str
    where: str = "parent"
    why: str = "network"

    def describe(self) -> str:
        return f"in the container: lo up, {INSIDE} up with {self.address}/{self.prefix_len}, default via {self.gateway}"

    def execute(self, context: Context) -> None:
        """Raises OSError naming the address."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fd = os.open(f"/proc/{context.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(fd, CLONE_NEWNET)
            finally:
                os.close(fd)
            try:
                self._configure()
            finally:
                setns(home, CLONE_NEWNET)
        finally:
            os.close(home)
        self._wait_until_passing()

    def _wait_until_passing(self) -> None:
        deadline = time.monotonic() + _PASSING_SECONDS
        with Rtnl() as route:
            for name in (self.link, self.bridge):
                while (link := route.link(name)) and not link.passing and time.monotonic() < deadline:
                    time.sleep(_PASSING_PAUSE)

    def _configure(self) -> None:
        # /proc/sys/net shows the namespace of the process that opens it.
        write_parameter(f"net/ipv6/conf/{INSIDE}/disable_ipv6", "1")
        with Rtnl() as route:
            route.configure(route.link_index(INSIDE), self.address, self.prefix_len, self.gateway)


class LoopbackUp(NamedTuple):
    """Set the loopback of a namespace without any other link up."""

    where: str = "child"
    why: str = "network"

    def describe(self) -> str:
        return "lo up; no other link"

    def execute(self, context: object) -> None:
        """Raises OSError."""
        del context
        with Rtnl() as route:
            route.set_up(_LOOPBACK)
