"""Network namespaces that stand for the host, its neighbour and its containers: the machine's own stays untouched."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidock.kernel import namespaces, process
from minidock.kernel.namespaces import CLONE_NEWNET
from minidock.kernel.netlink import Rtnl
from minidock.log import Log
from minidock.network.bridge import BridgeNetwork

OWN = "/proc/thread-self/ns/net"


class Namespace:
    """A network namespace held by a sleeping process; ``pid`` is what a step's context has."""

    def __init__(self) -> None:
        self._child = process.spawn(lambda: time.sleep(600), flags=CLONE_NEWNET)
        self.pid = self._child.pid

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Run the block in the namespace; sockets made there stay there."""
        home = os.open(OWN, os.O_RDONLY)
        there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            namespaces.setns(there, CLONE_NEWNET)
            yield
        finally:
            namespaces.setns(home, CLONE_NEWNET)
            os.close(there)
            os.close(home)

    def ip(self, *arguments: str) -> str:
        with self.entered():
            return run("ip", *arguments)

    def close(self) -> None:
        process.pidfd_send_signal(self._child.pidfd, 9)
        self._child.wait()
        self._child.close()


def run(*arguments: str) -> str:
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


class Host:
    """The private "host": an uplink up0 (192.0.2.2) to ``outside`` (192.0.2.1), and a bridge network."""

    def __init__(self, tmp_path: Path) -> None:
        self.outside = Namespace()
        self.messages = tmp_path / "messages"
        self._fd = os.open(self.messages, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.network = BridgeNetwork(
            state_dir=str(tmp_path / "networks"), lease_dir=str(tmp_path / "net"), log=Log(fd=self._fd)
        )
        self.stamp = tmp_path / "net/minidock0.ruleset"
        self._lock = os.open(tmp_path / "lock", os.O_WRONLY | os.O_CREAT)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._lock_path = str(tmp_path / "lock")
        self._containers: list[Namespace] = []
        run("ip", "link", "set", "lo", "up")
        run(
            "ip",
            "link",
            "add",
            "up0",
            "mtu",
            "1400",
            "type",
            "veth",
            "peer",
            "name",
            "down0",
            "netns",
            str(self.outside.pid),
        )
        run("ip", "addr", "add", "192.0.2.2/24", "dev", "up0")
        run("ip", "link", "set", "up0", "up")
        self.outside.ip("addr", "add", "192.0.2.1/24", "dev", "down0")
        self.outside.ip("link", "set", "down0", "up")
        run("ip", "route", "add", "default", "via", "192.0.2.1")

    def container(self) -> tuple[Namespace, str]:
        """A namespace connected as a container's would be, and its address."""
        bridge = self.network.ensure()
        lease = self.network.lease(bridge, "0123456789abcdef", root="/x", lock_path=self._lock_path)
        container = Namespace()
        self._containers.append(container)
        for step in self.network.attach_steps(bridge, lease):
            step.execute(container)
        return container, lease.address

    def forget(self, container: Namespace) -> None:
        """The test has closed it."""
        self._containers.remove(container)

    def close(self) -> None:
        for namespace in (*self._containers, self.outside):
            namespace.close()
        os.close(self._fd)
        os.close(self._lock)


def exchange(client: Namespace, server: Namespace | None, address: str, *, seconds: float = 10) -> str:
    """Connect from ``client`` to a listener in ``server`` (None: the host); the client's address as seen there, or ""
    when nothing came through in ``seconds``.

    The handshake is the kernels' own work: no process needs to run on the other side. A neighbour that was asked in
    vain is asked again a second later, so what shall pass is given more than that.
    """
    with server.entered() if server else contextlib.nullcontext():
        listener = socket.create_server((address, 0))
    listener.settimeout(seconds)
    with client.entered():
        caller = socket.socket()
    caller.settimeout(seconds)
    with listener, caller:
        try:
            caller.connect(listener.getsockname())
        except OSError:
            return ""
        accepted, seen = listener.accept()
        accepted.close()
        return str(seen[0])


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """The test's thread moves into a network namespace of its own, which becomes the host, and back at the end."""
    home = os.open(OWN, os.O_RDONLY)
    namespaces.unshare(CLONE_NEWNET)
    try:
        host = Host(tmp_path)
        try:
            yield host
        finally:
            host.close()
    finally:
        namespaces.setns(home, CLONE_NEWNET)
        os.close(home)


@pytest.fixture
def exchange_between() -> object:
    return exchange


@pytest.fixture
def link_of() -> object:
    """Look a link up by name in the namespace at hand."""

    def find(name: str) -> object:
        with Rtnl() as route:
            return route.link(name)

    return find
