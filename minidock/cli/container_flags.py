"""The flags that ``run``, ``create`` and ``explain run`` share, and what they mean to the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli.declare import Argument, Option, read_whole

if TYPE_CHECKING:
    from minidock.engine.options import CreateOptions

_MOST_SECONDS = 10**9
_MOST_BYTES = 2**63 - 1

ARGUMENTS = (Argument("IMAGE"), Argument("COMMAND", many=True, optional=True))


def read_size(text: str) -> int:
    """Bytes of a size such as ``64m``; ValueError for anything else."""
    from minidock.model.mounts import parse_size

    try:
        size = parse_size(text)
    except ValueError:
        size = -1
    if not 0 <= size <= _MOST_BYTES:
        raise ValueError("use a number with or without a unit, such as 64m or 1g")
    return size


def read_seconds(text: str) -> int:
    """Whole seconds, or -1 for no limit; ValueError for anything else."""
    try:
        seconds = read_whole(text)
    except ValueError:
        seconds = -2
    if seconds < -1 or seconds > _MOST_SECONDS:
        raise ValueError("use whole seconds, or -1 to wait for ever")
    return seconds


OPTIONS = (
    Option(("-i", "--interactive"), "Keep standard input open."),
    Option(("-t", "--tty"), "Give the command a terminal."),
    Option(("--rm",), "Remove the container and its anonymous volumes when it exits."),
    Option(("--name",), "Name the container.", "NAME"),
    Option(
        ("-e", "--env"), "Set an environment variable; without a value, pass the host's on.", "NAME[=VALUE]", many=True
    ),
    Option(("-w", "--workdir"), "Start the command in this directory.", "DIR"),
    Option(("-u", "--user"), "Run the command as this user.", "USER[:GROUP]"),
    Option(("--entrypoint",), "Replace the image's entrypoint; an empty text clears it.", "COMMAND"),
    Option(("-h", "--hostname"), "Set the container's host name.", "NAME"),
    Option(("-l", "--label"), "Set a label.", "NAME[=VALUE]", many=True),
    Option(
        ("-v", "--volume"),
        "Mount a volume or a host directory; a missing one is created.",
        "[SRC:]DST[:OPT]",
        many=True,
    ),
    Option(("--mount",), "Mount a volume (never created), a host path or a tmpfs.", "KEY=VALUE,...", many=True),
    Option(("--tmpfs",), "Mount a tmpfs.", "DST[:OPT]", many=True),
    Option(("--volumes-from",), "Mount what another container mounts.", "CONTAINER[:ro]", many=True),
    Option(("--read-only",), "Mount the root file system read-only."),
    Option(("--keep",), "Keep the writable layer when the container exits, until it is removed."),
    Option(("--cap-add",), "Add a capability, or ALL.", "CAP", many=True),
    Option(("--cap-drop",), "Drop a capability, or ALL.", "CAP", many=True),
    Option(("--privileged",), "Give all capabilities and devices, without seccomp and masks."),
    Option(
        ("--security-opt",),
        "no-new-privileges, seccomp=FILE|unconfined, systempaths=unconfined, apparmor=PROFILE, label=disable.",
        "OPT",
        many=True,
    ),
    Option(("--group-add",), "Add a group of the image's, or an ID, to the user's.", "GROUP", many=True),
    Option(("--device",), "Give a device of the host's, or a directory of them.", "HOST[:CONTAINER[:rwm]]", many=True),
    Option(("--device-cgroup-rule",), "Allow devices by type and numbers: 'c 10:200 rwm'.", "RULE", many=True),
    Option(("--ulimit",), "Set a resource limit; -1 is unlimited.", "NAME=SOFT[:HARD]", many=True),
    Option(("--sysctl",), "Set a kernel parameter of the container's own namespaces.", "NAME=VALUE", many=True),
    Option(("--network", "--net"), "bridge, none or host.", "NETWORK", default="bridge"),
    Option(("--platform",), "What the image has to be for.", "OS/ARCH[/VARIANT]"),
    Option(("--pull",), "Pull the image always, if it is missing, or never.", "POLICY"),
    Option(("--init",), "Run an init inside that forwards signals and reaps processes."),
    Option(("--stop-signal",), "The signal that asks the container to stop.", "SIGNAL"),
    Option(("--stop-timeout",), "Seconds from the stop signal to SIGKILL; -1 for ever.", "SECONDS", read=read_seconds),
    Option(("--shm-size",), "The size of /dev/shm.", "BYTES", read=read_size),
)

NOT_YET = (
    "--add-host --annotation -a --attach --blkio-weight --blkio-weight-device --cgroup-parent --cgroupns --cidfile "
    "-c --cpu-shares --cpu-count --cpu-percent --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime --cpus "
    "--cpuset-cpus --cpuset-mems --detach-keys --device-read-bps --device-read-iops "
    "--device-write-bps --device-write-iops --disable-content-trust --dns --dns-opt --dns-option --dns-search "
    "--domainname --env-file --expose --gpus --health-cmd --health-interval --health-retries "
    "--health-start-interval --health-start-period --health-timeout --ip --ip6 --ipc --isolation --kernel-memory "
    "--label-file --link --link-local-ip --log-driver --log-opt --mac-address -m --memory --memory-reservation "
    "--memory-swap --memory-swappiness --net-alias --network-alias --no-healthcheck --oom-kill-disable --oom-score-adj "
    "--pid --pids-limit -p --publish -P --publish-all -q --quiet --restart --runtime --sig-proxy "
    "--storage-opt --use-api-socket --userns --uts --volume-driver"
)


def create_options(flags: dict[str, Any]) -> CreateOptions:
    """The engine's options for the values of ``OPTIONS``."""
    entrypoint = flags["entrypoint"]
    options: CreateOptions = {
        "name": flags["name"] or "",
        "env": flags["env"],
        "workdir": flags["workdir"] or "",
        "user": flags["user"] or "",
        "hostname": flags["hostname"] or "",
        "labels": flags["label"],
        "volumes": flags["volume"],
        "mounts": flags["mount"],
        "tmpfs": flags["tmpfs"],
        "volumes_from": flags["volumes_from"],
        "read_only": flags["read_only"],
        "keep": flags["keep"],
        "auto_remove": flags["rm"],
        "cap_add": flags["cap_add"],
        "cap_drop": flags["cap_drop"],
        "privileged": flags["privileged"],
        "security_opt": flags["security_opt"],
        "network": flags["network"],
        "init": flags["init"],
        "stop_signal": flags["stop_signal"] or "",
        "tty": flags["tty"],
        "interactive": flags["interactive"],
        "ulimits": flags["ulimit"],
        "sysctls": flags["sysctl"],
        "devices": flags["device"],
        "device_cgroup_rules": flags["device_cgroup_rule"],
        "group_add": flags["group_add"],
    }
    if flags["platform"]:
        options["platform"] = flags["platform"]
    if flags["pull"]:
        options["pull"] = flags["pull"]
    if entrypoint is not None:
        options["entrypoint"] = (entrypoint,) if entrypoint else ()
    if flags["stop_timeout"] is not None:
        options["stop_timeout"] = flags["stop_timeout"]
    if flags["shm_size"] is not None:
        options["shm_size"] = flags["shm_size"]
    return options
