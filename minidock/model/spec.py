"""From a container to its OCI runtime spec (runtime-spec 1.2): the default sandbox as data.

What the spec cannot say is an annotation: the user and further groups by name (resolved inside the root file system)
and the seccomp profile by name or path; in a mount, the volume that it is of and a path below that; in a resource
limit, that it was asked for and must be met, not only as far as the caller's own goes; in a build step's mount, the
root mount that it is a part of, or the secret that it holds. Mounts are listed in the order
in which they are made: the engine's own first, then the others, shallow before deep.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from minidock.errors import UsageError
from minidock.model.capabilities import effective_set
from minidock.model.container import Record
from minidock.model.mounts import Mount

VERSION = "1.2.0"
USER = "io.minidock.user"
GROUPS = "io.minidock.groups"
SECCOMP = "io.minidock.seccomp"
SUBPATH = "io.minidock.subpath"
VOLUME = "io.minidock.volume"
ASKED = "io.minidock.asked"
TREE = "io.minidock.tree"
SECRET = "io.minidock.secret"
INIT_TARGET = "/sbin/docker-init"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

LIMITS = (("RLIMIT_CORE", 0, 0), ("RLIMIT_NOFILE", 1024, 524288), ("RLIMIT_NPROC", -1, -1))
"""Resource limits as (name, soft, hard), whatever the caller's own are; -1 and what is above the hard limit that there
is mean that one. Descriptors as systemd has them (select(2) breaks above 1024); processes are limited by the cgroup, as
RLIMIT_NPROC counts those of a user ID over all containers."""

SYSCTLS = (("net.ipv4.ping_group_range", "0 2147483647"), ("net.ipv4.ip_unprivileged_port_start", "0"))
"""Every container's own network has these; a kernel may be built without one, and then has nothing to restrict."""

_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_FLAGS = ("nosuid", "noexec", "nodev")
LXCFS = frozenset(
    "/proc/" + name
    for name in (
        "cpuinfo",
        "meminfo",
        "stat",
        "uptime",
        "loadavg",
        "diskstats",
        "swaps",
        "slabinfo",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    )
)


class Sandbox(NamedTuple):
    """What decides the walls: the same for containers and build steps.

    ``available`` is the engine's own bounding set; ``devices`` are further nodes as the spec's ``linux.devices``,
    ``device_rules`` further rules as its ``linux.resources.devices``; ``profile`` is where the seccomp profile lies
    that ``security_opt`` names; ``ulimits`` and ``sysctls`` are texts as the flags have them.
    """

    available: frozenset[str]
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    network: str = "bridge"
    shm_size: int = 67108864
    pids_limit: int = 2048
    devices: tuple[dict[str, Any], ...] = ()
    device_rules: tuple[dict[str, Any], ...] = ()
    profile: str = ""
    ulimits: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()


class Process(NamedTuple):
    """The process that runs inside. ``env`` is whole but for HOME; ``user`` is docker's ``user[:group]`` text,
    ``groups`` are names or IDs of further groups."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str = "/"
    user: str = ""
    terminal: bool = False
    groups: tuple[str, ...] = ()


def container_spec(
    record: Record,
    *,
    rootfs: str,
    files: Sequence[tuple[str, str]],
    volume_path: Callable[[str], str],
    available: frozenset[str],
    devices: tuple[dict[str, Any], ...] = (),
    device_rules: tuple[dict[str, Any], ...] = (),
    profile: str = "",
    cgroups_path: str = "",
    init: str = "",
) -> dict[str, Any]:
    """The runtime spec of a container.

    ``rootfs`` is the bundle's directory on which the root is mounted; ``files`` are generated files as pairs of target
    and host path; ``volume_path`` gives a volume's directory; ``devices``, ``device_rules`` and ``profile`` are as in
    ``Sandbox``; ``init`` is the host's init program for ``--init``. Raises UsageError for capabilities, security
    options, limits, kernel parameters and mount targets that make no sense.
    """
    settings = record.settings
    env = with_defaults(record.env, hostname=record.hostname, terminal=settings.tty)
    args = (INIT_TARGET, "--", *record.args) if settings.init else record.args
    binds = [bind_mount(path, target, options=("rbind", "rprivate")) for target, path in files]
    if settings.init:
        binds.append(bind_mount(init, INIT_TARGET, options=("bind", "rprivate", "ro")))
    return _spec(
        Process(args, env, record.workdir or "/", record.user, settings.tty, settings.group_add),
        Sandbox(
            available=available,
            cap_add=settings.cap_add,
            cap_drop=settings.cap_drop,
            privileged=settings.privileged,
            security_opt=settings.security_opt,
            network=settings.network,
            shm_size=settings.shm_size,
            devices=devices,
            device_rules=device_rules,
            profile=profile,
            ulimits=settings.ulimits,
            sysctls=settings.sysctls,
        ),
        rootfs=rootfs,
        read_only=settings.read_only,
        hostname=record.hostname,
        mounts=[*binds, *(user_mount(m, volume_path) for m in record.mounts)],
        replaced={check_target(m.target): m.type for m in record.mounts},
        cgroups_path=cgroups_path,
    )


def step_spec(
    process: Process,
    *,
    rootfs: str,
    files: Sequence[tuple[str, str]],
    available: frozenset[str],
    network: str = "bridge",
    hostname: str = "buildkitsandbox",
    cgroups_path: str = "",
    ulimits: tuple[str, ...] = (),
    mounts: Sequence[dict[str, Any]] = (),
    insecure: bool = False,
    shm_size: int = 0,
    devices: tuple[dict[str, Any], ...] = (),
    device_rules: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:
    """The runtime spec of a build step: the default sandbox, with generated ``files`` bound in.

    ``ulimits`` are texts as ``--ulimit`` has them; ``mounts`` are further ones as the spec has them, where ``TREE`` and
    ``SECRET`` are known; an ``insecure`` step has no walls but its namespaces; ``shm_size`` is bytes, 0 for the usual;
    ``devices`` and ``device_rules`` are as in ``Sandbox``.
    Raises UsageError for a limit or a mount's target that makes no sense.
    """
    sandbox = Sandbox(available=available, privileged=insecure, network=network, ulimits=ulimits)
    sandbox = sandbox._replace(devices=devices, device_rules=device_rules)
    binds = [bind_mount(path, target, options=("rbind", "rprivate")) for target, path in files]
    return _spec(
        process._replace(env=with_defaults(process.env, hostname="", terminal=process.terminal)),
        sandbox._replace(shm_size=shm_size) if shm_size else sandbox,
        rootfs=rootfs,
        read_only=False,
        hostname=hostname,
        mounts=[*binds, *mounts],
        replaced={check_target(mount["destination"]): mount["type"] for mount in mounts},
        cgroups_path=cgroups_path,
    )


def with_defaults(env: Iterable[str], *, hostname: str, terminal: bool) -> tuple[str, ...]:
    """``env`` with PATH, HOSTNAME and (with a terminal) TERM where it does not set them."""
    values = tuple(env)
    names = {value.partition("=")[0] for value in values}
    extra = [DEFAULT_PATH] if "PATH" not in names else []
    if hostname and "HOSTNAME" not in names:
        extra.append(f"HOSTNAME={hostname}")
    if terminal and "TERM" not in names:
        extra.append("TERM=xterm")
    return (*extra, *values)


def bind_mount(source: str, target: str, *, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": source, "options": list(options)}


def check_target(target: str) -> str:
    """Return a mount target made canonical; raise UsageError for one inside /proc or at the root itself.

    Masks and kernel parameters lie there, so a mount over them would open or fake them; the files that lxcfs serves are
    let through.
    """
    path = os.path.normpath("/" + target.lstrip("/"))
    if path == "/":
        raise UsageError("invalid mount target '/': a mount cannot replace the container's root")
    if (path == "/proc" or path.startswith("/proc/")) and path not in LXCFS:
        raise UsageError(f"invalid mount target {target!r}: nothing may be mounted inside /proc")
    return path


def _spec(
    process: Process,
    sandbox: Sandbox,
    *,
    rootfs: str,
    read_only: bool,
    hostname: str,
    mounts: list[dict[str, Any]],
    replaced: dict[str, str],
    cgroups_path: str,
) -> dict[str, Any]:
    no_new_privs, seccomp, open_paths, apparmor = _security(sandbox)
    if sandbox.privileged:
        caps = sorted(sandbox.available)
    else:
        caps = sorted(effective_set(add=sandbox.cap_add, drop=sandbox.cap_drop, available=sandbox.available))
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": process.terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(process.args),
            "env": list(process.env),
            "cwd": process.cwd,
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": no_new_privs,
            "oomScoreAdj": 0,
            "rlimits": _rlimits(sandbox.ulimits),
            **({"apparmorProfile": apparmor} if apparmor else {}),
        },
        "root": {"path": rootfs, "readonly": read_only},
        "hostname": hostname,
        "mounts": [
            *_default_mounts(sandbox, replaced),
            *sorted(mounts, key=lambda mount: mount["destination"].count("/")),
        ],
        "annotations": {
            USER: process.user,
            SECCOMP: seccomp,
            **({GROUPS: " ".join(process.groups)} if process.groups else {}),
        },
        "linux": {
            "namespaces": _namespaces(sandbox.network),
            "maskedPaths": [] if open_paths else list(MASKED),
            "readonlyPaths": [] if open_paths else list(READ_ONLY),
            # A directory of the host's at /dev is not ours to fill (runc, needsSetupDev); a tmpfs there is.
            "devices": [] if replaced.get("/dev", "tmpfs") != "tmpfs" else _devices(sandbox.devices),
            "resources": {"devices": _device_rules(sandbox), "pids": {"limit": sandbox.pids_limit}},
            "sysctl": _sysctls(sandbox),
            "cgroupsPath": cgroups_path,
        },
    }


def _namespaces(network: str) -> list[dict[str, str]]:
    kinds = ["mount", "pid", "uts", "ipc", "cgroup"]
    if network != "host":
        kinds.append("network")
    return [{"type": kind} for kind in kinds]


def _security(sandbox: Sandbox) -> tuple[bool, str, bool, str]:
    """no_new_privs, the seccomp profile, whether nothing is masked, and the AppArmor profile."""
    default = "unconfined" if sandbox.privileged else "builtin"
    if not sandbox.security_opt:
        return False, default, sandbox.privileged, ""
    from minidock.model.security import security_options

    options = security_options(sandbox.security_opt)
    seccomp = (sandbox.profile or options.profile) if options.profile else options.seccomp
    return (
        options.no_new_privs,
        seccomp or default,
        sandbox.privileged or options.unconfined_paths,
        options.apparmor,
    )


def _rlimits(ulimits: Sequence[str]) -> list[dict[str, Any]]:
    limits: dict[str, dict[str, Any]] = {
        name: {"type": name, "soft": soft, "hard": hard} for name, soft, hard in LIMITS
    }
    if ulimits:
        from minidock.model.ulimits import parse_ulimits

        for limit in parse_ulimits(ulimits):
            name = limit.kernel_name
            limits[name] = {"type": name, "soft": limit.soft, "hard": limit.hard, ASKED: True}
    return list(limits.values())


def _sysctls(sandbox: Sandbox) -> dict[str, str]:
    values = {} if sandbox.network == "host" else dict(SYSCTLS)
    if sandbox.sysctls:
        from minidock.model.sysctls import parse_sysctls

        values |= parse_sysctls(sandbox.sysctls, network=sandbox.network)
    return values


def _default_mounts(sandbox: Sandbox, replaced: Iterable[str]) -> list[dict[str, Any]]:
    """A person's mount at one of these places takes the place of it and of those below."""
    access = "rw" if sandbox.privileged else "ro"
    table: list[tuple[str, str, str, tuple[str, ...]]] = [
        ("/proc", "proc", "proc", _FLAGS),
        ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
        ("/dev/mqueue", "mqueue", "mqueue", _FLAGS),
        ("/dev/shm", "tmpfs", "shm", (*_FLAGS, "mode=1777", f"size={sandbox.shm_size}")),
        ("/sys", "sysfs", "sysfs", (*_FLAGS, access)),
        ("/sys/fs/cgroup", "cgroup", "cgroup", (*_FLAGS, access)),
    ]
    return [
        {"destination": target, "type": kind, "source": source, "options": list(options)}
        for target, kind, source, options in table
        if not any(target == path or target.startswith(f"{path}/") for path in replaced)
    ]


def _devices(further: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes of /dev, each path once: of two the later counts."""
    nodes: dict[str, dict[str, Any]] = {}
    for name, major, minor in _NODES:
        path = f"/dev/{name}"
        nodes[path] = {"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0}
    for node in further:
        nodes[node["path"]] = node
    return list(nodes.values())


def _device_rules(sandbox: Sandbox) -> list[dict[str, Any]]:
    if sandbox.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    numbers = [(major, minor) for _, major, minor in _NODES] + [(5, 1), (5, 2)]
    rules += [{"allow": True, "type": "c", "major": a, "minor": b, "access": "rwm"} for a, b in numbers]
    rules.append({"allow": True, "type": "c", "major": 136, "access": "rwm"})
    return [*rules, *sandbox.device_rules]


def user_mount(mount: Mount, volume_path: Callable[[str], str]) -> dict[str, Any]:
    """A mount that a person asks for as the spec has it. Raises UsageError for a target that makes no sense."""
    target = check_target(mount.target)
    if mount.type == "tmpfs":
        options = [*_FLAGS, *(["ro"] if mount.read_only else []), *mount.options]
        return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
    source = volume_path(mount.source) if mount.type == "volume" else mount.source
    options = ["bind" if mount.recursive == "disabled" else "rbind", mount.propagation]
    if mount.read_only:
        options.append("ro" if mount.recursive == "writable" else "rro")
    value = bind_mount(source, target, options=options)
    if mount.type == "volume":
        value[VOLUME] = mount.source
    if mount.subpath:
        value[SUBPATH] = mount.subpath
    return value
