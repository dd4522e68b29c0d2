"""The sandbox of a build's RUN steps: from a request to the runtime's plan. It lives in the steps' keeper."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from minidock.kernel import caps
from minidock.model.spec import Process, step_spec
from minidock.model.steps import decode_root
from minidock.network import leases, resolvconf
from minidock.network.bridge import BridgeNetwork
from minidock.runtime.plan import available_capabilities, plan

if TYPE_CHECKING:
    from minidock.log import Log
    from minidock.model.steps import Step
    from minidock.network.leases import Lease
    from minidock.runtime.plan import Plan
    from minidock.store.layout import DataRoot

HOSTNAME = "buildkitsandbox"


class Sandbox:
    """Call it with a request to get the plan of one step. A context: one network lease serves all steps.

    ``directory`` is a private one, locked as long as the steps run; ``cgroup`` begins the names of their cgroups.
    """

    __slots__ = ("_available", "_cgroup", "_directory", "_lease", "_network", "_root")

    def __init__(self, root: DataRoot, directory: str, *, cgroup: str, log: Log) -> None:
        caps.preload()
        self._root = root
        self._directory = directory
        self._cgroup = cgroup
        self._network = BridgeNetwork(state_dir=root.networks, log=log)
        self._lease: Lease | None = None
        self._available = available_capabilities()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._lease is not None:
            self._network.release(self._lease.path)

    def __call__(self, request: dict[str, Any]) -> Plan:
        """Raises MinidockError for what makes no sense and what the host cannot do, OSError."""
        network = request["network"]
        address, extra = self._connect(network)
        spec = step_spec(
            Process(tuple(request["args"]), tuple(request["env"]), request["workdir"] or "/", request["user"]),
            rootfs=f"{self._directory}/rootfs",
            files=self._write_files(address, network),
            available=self._available,
            network=network,
            hostname=HOSTNAME,
            ulimits=tuple(request["ulimits"]),
        )
        cache = f"{self._root.cache}/seccomp"
        return plan(spec, root=decode_root(request["root"]), extra=extra, cgroup=self._cgroup, seccomp_cache=cache)

    def _connect(self, network: str) -> tuple[str, tuple[Step, ...]]:
        """The step's address, and what connects it: each time by another link, since the former may be dying still."""
        if network != "bridge":
            return "", (self._network.loopback_step(),) if network == "none" else ()
        bridge, name = self._network.ensure(), os.path.basename(self._directory)
        if self._lease is None:
            self._lease = self._network.lease(bridge, name, root=self._root.path, lock_path=self._directory)
        lease = self._lease._replace(link=leases.link_name(name))
        return lease.address, self._network.attach_steps(bridge, lease)

    def _write_files(self, address: str, network: str) -> list[tuple[str, str]]:
        """The step's hosts and resolv.conf, as pairs of target and path; new files: a step may write to its own."""
        texts = {"/etc/hosts": resolvconf.hosts_text(HOSTNAME, address)}
        if network != "none":
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
