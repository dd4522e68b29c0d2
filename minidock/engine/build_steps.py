"""What runs a build's RUN steps: the runtime with the default network, bound to one data root."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.model.spec import Process, step_spec
from minidock.network import resolvconf
from minidock.network.bridge import BridgeNetwork
from minidock.runtime import step
from minidock.runtime.plan import available_capabilities, plan
from minidock.store import files
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.log import Log
    from minidock.model.steps import RootMount, Step
    from minidock.store.layout import DataRoot

HOSTNAME = "buildkitsandbox"


class StepRunner:
    """Runs commands in root file systems, one after the other, in the default sandbox.

    A context: its staging directory holds the generated files and the mount point, and its lock is what the steps'
    network leases hang on, so that a killed build's address is free at once.
    """

    __slots__ = ("_available", "_log", "_network", "_root", "_staging")

    def __init__(self, root: DataRoot, log: Log) -> None:
        self._root = root
        self._log = log
        self._staging = Staging(root, "steps")
        self._network = BridgeNetwork(state_dir=root.networks, log=log)
        self._available = available_capabilities()

    def __enter__(self) -> StepRunner:
        step.remove_stale_cgroups()
        self._staging.__enter__()
        os.mkdir(f"{self._staging.path}/rootfs", 0o755)
        return self

    def __exit__(self, *exc: object) -> None:
        self._staging.__exit__(None, None, None)

    def __call__(
        self,
        *,
        root: RootMount,
        args: tuple[str, ...],
        env: tuple[str, ...],
        workdir: str,
        user: str,
        network: str,
        on_output: Callable[[bytes], None],
    ) -> step.StepResult:
        """Run one command to its end; see ``runtime.step.run_to_exit`` for what it raises, NetworkError besides."""
        address, lease, extra = self._connect(network)
        try:
            spec = step_spec(
                Process(args, env, workdir or "/", user),
                rootfs=f"{self._staging.path}/rootfs",
                files=self._write_files(address, network),
                available=self._available,
                network=network,
                hostname=HOSTNAME,
            )
            planned = plan(
                spec,
                root=root,
                extra=extra,
                cgroup=step.cgroup_name(),
                seccomp_cache=f"{self._root.cache}/seccomp",
            )
            return step.run_to_exit(planned, on_output=on_output, log=self._log)
        finally:
            if lease:
                self._network.release(lease)

    def _connect(self, network: str) -> tuple[str, str, tuple[Step, ...]]:
        if network != "bridge":
            return "", "", (self._network.loopback_step(),) if network == "none" else ()
        bridge = self._network.ensure()
        lease = self._network.lease(
            bridge, os.path.basename(self._staging.path), root=self._root.path, lock_path=self._staging.path
        )
        return lease.address, lease.path, self._network.attach_steps(bridge, lease)

    def _write_files(self, address: str, network: str) -> list[tuple[str, str]]:
        """The step's hosts and resolv.conf, as pairs of target and path."""
        texts = {"/etc/hosts": resolvconf.hosts_text(HOSTNAME, address)}
        if network != "none":
            texts["/etc/resolv.conf"] = resolvconf.container_resolv_conf()
        pairs = []
        for target, text in texts.items():
            path = f"{self._staging.path}/{os.path.basename(target)}"
            files.write_atomic(path, text.encode(), sync=False, mode=0o644)
            pairs.append((target, path))
        return pairs
