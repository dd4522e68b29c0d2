"""The sandbox of a build's RUN steps: from a request to the runtime's plan. It lives in the steps' keeper."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from minidock.kernel import caps
from minidock.model.spec import SECRET, TREE, Process, bind_mount, step_spec
from minidock.model.steps import decode_root
from minidock.network import leases, resolvconf
from minidock.network.bridge import BridgeNetwork
from minidock.runtime.plan import available_capabilities, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.log import Log
    from minidock.model.steps import Step
    from minidock.network.leases import Lease
    from minidock.runtime.agents import Agents
    from minidock.runtime.plan import Plan
    from minidock.store.layout import DataRoot

HOSTNAME = "buildkitsandbox"


class Sandbox:
    """Call it with a request to get the plan of one step. A context: one network lease serves all steps.

    ``directory`` is a private one, locked as long as the steps run; ``cgroup`` begins the names of their cgroups.
    """

    __slots__ = ("_agents", "_available", "_cgroup", "_directory", "_lease", "_network", "_root")

    def __init__(self, root: DataRoot, directory: str, *, cgroup: str, log: Log) -> None:
        caps.preload()
        self._root = root
        self._directory = directory
        self._cgroup = cgroup
        self._network = BridgeNetwork(state_dir=root.networks, log=log)
        self._lease: Lease | None = None
        self._agents: Agents | None = None
        self._available = available_capabilities()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._lease is not None:
            self._network.release(self._lease.path)

    def __call__(self, request: dict[str, Any]) -> Plan:
        """Raises MinidockError for what makes no sense and what the host cannot do, OSError."""
        network = request["network"]
        address, gateway, extra = self._connect(network)
        devices = request["devices"]
        spec = step_spec(
            Process(
                tuple(request["args"]),
                tuple(request["env"]),
                request["workdir"] or "/",
                request["user"],
                terminal=request["terminal"],
                groups=tuple(devices.get("groups", ())),
            ),
            rootfs=f"{self._directory}/rootfs",
            files=self._write_files(address, network, hosts=request["hosts"], gateway=gateway),
            available=self._available,
            network=network,
            hostname=HOSTNAME,
            ulimits=tuple(request["ulimits"]),
            mounts=self._mounts(request),
            insecure=request["insecure"],
            shm_size=request["shm_size"],
            devices=tuple(devices.get("nodes", ())),
            device_rules=tuple(devices.get("rules", ())),
        )
        cache = f"{self._root.cache}/seccomp"
        return plan(spec, root=decode_root(request["root"]), extra=extra, cgroup=self._cgroup, seccomp_cache=cache)

    def _mounts(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """The step's further mounts, with the private folder through which parts of trees are found."""
        if self._agents is not None:
            self._agents.stop()
        mounts: list[dict[str, Any]] = request["mounts"]
        place = f"{self._directory}/parts"
        for mount in mounts:
            if TREE in mount or SECRET in mount:
                os.makedirs(place, 0o700, exist_ok=True)
                mount["source"] = place
        for agent in request["agents"]:
            if self._agents is None:
                from minidock.runtime.agents import Agents

                self._agents = Agents(self._directory)
            path = self._agents.forward(agent["paths"], mode=agent["mode"], uid=agent["uid"], gid=agent["gid"])
            options = ("bind", "private", "ro", "nosuid", "nodev", "noexec")
            mounts.append(bind_mount(path, agent["target"], options=options))
        return mounts

    def _connect(self, network: str) -> tuple[str, str, tuple[Step, ...]]:
        """The step's address and gateway, and what connects it: each time by another link, since the former may be
        dying still."""
        if network != "bridge":
            steps = (self._network.loopback_step(),) if network == "none" else ()
            return "", "127.0.0.1" if network == "host" else "", steps
        bridge, name = self._network.ensure(), os.path.basename(self._directory)
        if self._lease is None:
            self._lease = self._network.lease(bridge, name, root=self._root.path, lock_path=self._directory)
        lease = self._lease._replace(link=leases.link_name(name))
        return lease.address, bridge.gateway, self._network.attach_steps(bridge, lease)

    def _write_files(
        self, address: str, network: str, *, hosts: Sequence[Sequence[str]], gateway: str
    ) -> list[tuple[str, str]]:
        """The step's hosts and resolv.conf, as pairs of target and path; new files: a step may write to its own."""
        # Without a network there is no host to be reached.
        extra = [(name, target) for name, target in hosts if gateway or target != resolvconf.HOST_GATEWAY]
        texts = {"/etc/hosts": resolvconf.hosts_text(HOSTNAME, address, extra, gateway=gateway)}
        if network == "host":
            hosts_own = resolvconf.host_resolvers()
            texts["/etc/resolv.conf"] = resolvconf.resolv_text(hosts_own, own_namespace=False)
        elif network != "none":
            texts["/etc/resolv.conf"] = resolvconf.container_resolv_conf()
        pairs = []
        for target, text in texts.items():
            path = f"{self._directory}/{os.path.basename(target)}"
            with suppress(FileNotFoundError):
                os.unlink(path)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(fd, 0o644)
                os.write(fd, text.encode())
            finally:
                os.close(fd)
            pairs.append((target, path))
        return pairs
