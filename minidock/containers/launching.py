"""From a record to a running process: network, generated files, spec, plan, start. What a monitor calls once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import HostError, MinidockError, UsageError
from minidock.store import files

if TYPE_CHECKING:
    from minidock.containers.parts import Parts
    from minidock.log import Log
    from minidock.model.container import Record, Settings
    from minidock.model.steps import Step

NETWORKS = ("bridge", "none", "host")

PROFILE = "seccomp.json"
"""The name of the seccomp profile's copy in the container's directory."""

_INITS = (
    "/usr/bin/tini-static",
    "/usr/libexec/docker/docker-init",
    "/usr/bin/docker-init",
    "/usr/bin/tini",
    "/usr/libexec/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/bin/dumb-init",
)


class Request(NamedTuple):
    """``stdin``, ``stdout`` and ``stderr`` are the container's, all -1 with a terminal, whose first size is given."""

    parts: Parts
    record: Record
    stdin: int
    stdout: int
    stderr: int
    winsize: tuple[int, int]


class Launched(NamedTuple):
    """A running container: its first process (the host's PID), the terminal's master or -1, address and lease or ""."""

    pid: int
    pidfd: int
    start_time: int
    console: int
    address: str = ""
    lease: str = ""


Launch = Callable[[Request], Launched]


class Attachment(NamedTuple):
    """The container's place in the network: the steps that make it, its address and the lease's file, or ""."""

    steps: Sequence[Step]
    address: str = ""
    lease: str = ""


def launch(request: Request) -> Launched:
    """Start the container of a record. Raises ContainerStartError and its kin, NetworkError, UsageError, HostError.

    On failure nothing is left but, perhaps, files in the container's own directory.
    """
    from minidock.kernel import process
    from minidock.runtime.context import Stdio
    from minidock.runtime.launch import start
    from minidock.runtime.plan import plan

    parts, record = request.parts, request.record
    attachment = attach_network(parts, record)
    try:
        spec = write_spec(parts, record, attachment.address)
        assert parts.rootfs is not None, "a start has the root file systems at hand"
        started = start(
            plan(
                spec,
                root=parts.rootfs.mounts(
                    record.diff_ids, parts.root.container_dir(record.id), durable=record.settings.keep
                ),
                extra=attachment.steps,
                cgroup=record.id,
                seccomp_cache=f"{parts.root.cache}/seccomp",
            ),
            stdio=Stdio(request.stdin, request.stdout, request.stderr, record.settings.tty, request.winsize),
            log=parts.log,
        )
    except BaseException:
        if attachment.lease:
            files.unlink_if_there(attachment.lease)
        raise
    pid = process.host_pid(started.pidfd)
    return Launched(pid, started.pidfd, process.start_time(pid), started.console, attachment.address, attachment.lease)


def attach_network(parts: Parts, record: Record) -> Attachment:
    """Lease an address on the default bridge where the record asks for that. Raises NetworkError, UsageError."""
    network = record.settings.network
    if network == "host":
        return Attachment(())
    if network == "none":
        from minidock.network.steps import LoopbackUp

        return Attachment((LoopbackUp(),))
    if network != "bridge":
        raise unknown_network(network)
    from minidock.network.bridge import BridgeNetwork

    bridge_network = BridgeNetwork(state_dir=parts.root.networks, log=parts.log)
    bridge = bridge_network.ensure()
    lease = bridge_network.lease(
        bridge, record.id, root=parts.root.path, lock_path=parts.root.container_lock(record.id)
    )
    return Attachment(bridge_network.attach_steps(bridge, lease), lease.address, lease.path)


def unknown_network(network: str) -> UsageError:
    return UsageError(f"unknown network {network!r}", hint=f"this minidock knows {', '.join(NETWORKS)}")


def write_spec(parts: Parts, record: Record, address: str) -> dict[str, object]:
    """Write the generated files and ``config.json`` into the container's directory and return the runtime spec."""
    from minidock.model.spec import container_spec
    from minidock.runtime.plan import available_capabilities

    directory = parts.root.container_dir(record.id)
    os.makedirs(f"{directory}/rootfs", 0o755, exist_ok=True)
    nodes, rules = devices_of(record.settings)
    spec = container_spec(
        record,
        rootfs=f"{directory}/rootfs",
        files=write_generated(directory, record, address, parts.log),
        volume_path=parts.volumes.path_of,
        available=available_capabilities(),
        devices=nodes,
        device_rules=rules,
        profile=f"{directory}/{PROFILE}",
        cgroups_path=f"/minidock/{record.id}",
        init=find_init() if record.settings.init else "",
    )
    files.write_json(f"{directory}/config.json", spec, sync=False, scratch=parts.root.tmp, lists=True)
    return spec


def write_generated(directory: str, record: Record, address: str, log: Log) -> list[tuple[str, str]]:
    """Write hosts, hostname and resolv.conf anew; pairs of target and path. Targets that a mount takes are left out."""
    from minidock.network import resolvconf

    if record.settings.network == "host":
        hosts, resolvers = _host_file("/etc/hosts"), _host_file("/etc/resolv.conf")
    else:
        hosts, resolvers = "", resolvconf.container_resolv_conf()
    if record.settings.network == "bridge" and not resolvconf.nameservers(resolvers):
        log.warning("no name server of the host can be reached from the container: names will not resolve in it")
    texts = {
        "/etc/hosts": hosts or resolvconf.hosts_text(record.hostname, address),
        "/etc/hostname": resolvconf.hostname_text(record.hostname),
        "/etc/resolv.conf": resolvers,
    }
    taken = {mount.target for mount in record.mounts}
    pairs = []
    for target, text in texts.items():
        path = f"{directory}/{os.path.basename(target)}"
        if target not in taken:
            files.write_atomic(path, text.encode("utf-8", "surrogateescape"), sync=False, mode=0o644)
            pairs.append((target, path))
    return pairs


def find_init() -> str:
    """The host's small init program for ``--init``. Raises HostError."""
    for path in _INITS:
        if os.access(path, os.X_OK):
            return path
    raise HostError("no init program for --init is on this host", hint="install one, such as: apt-get install tini")


def devices_of(settings: Settings) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """The nodes and rules of ``devices.devices_of``, which an ordinary start does not load."""
    if not (settings.privileged or settings.devices or settings.device_cgroup_rules):
        return (), ()
    from minidock.containers import devices

    return devices.devices_of(settings)


def _host_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return ""
        raise MinidockError(f"cannot read {path}: {error.strerror}") from error
