"""From an OCI runtime spec to the ordered list of steps that make the container; it only reads, the host's layout.

The launcher executes the list, ``--debug`` prints it as it happens and ``minidock explain`` prints it beforehand.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from minidock.errors import ContainerStartError, UsageError
from minidock.kernel import cgroups
from minidock.kernel.caps import bounding_set
from minidock.model.spec import ASKED, GROUPS, SECCOMP, SECRET, SUBPATH, TREE, USER, VOLUME
from minidock.model.steps import OverlayMount, RootMount, Step
from minidock.runtime import mount_steps as ms
from minidock.runtime import process_steps as ps
from minidock.runtime import seccomp
from minidock.runtime.cgroup_steps import JoinCgroup, LeaveCgroupNamespace, MountCgroups
from minidock.runtime.options import parse_options
from minidock.runtime.parent_steps import FLAGS, Clone, CreateCgroup, OpenLayers

_NO_LIMIT = 2**63
_THERMAL = "/sys/devices/system/cpu"


class Plan(NamedTuple):
    """The steps in the order in which they are shown.

    ``before`` run in the parent, then the child is born with the namespaces of ``flags``; ``beside`` run in the parent
    while the child runs ``mounts``; then the child runs ``inside``, of which the last never returns.
    """

    before: tuple[Step, ...]
    birth: Clone
    flags: int
    beside: tuple[Step, ...]
    mounts: tuple[Step, ...]
    inside: tuple[Step, ...]
    terminal: bool
    args: tuple[str, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        return (*self.before, self.birth, *self.beside, *self.mounts, *self.inside)


def plan(
    spec: dict[str, Any],
    *,
    root: RootMount,
    extra: Sequence[Step] = (),
    cgroup: str,
    seccomp_cache: str,
    layout: cgroups.Layout | None = None,
) -> Plan:
    """Plan the start of a container.

    ``root`` is the root file system as its storage driver returned it; ``extra`` are further steps, the parent's done
    beside the child's mounts and the child's after them (the network's); ``cgroup`` is the new cgroup's name;
    ``seccomp_cache`` is a private directory for compiled filters. Raises UsageError for a spec that makes no sense and
    ContainerStartError where the host cannot do what it asks.
    """
    _check_process(spec["process"])
    layout = layout or cgroups.detect()
    kinds = tuple(namespace["type"] for namespace in spec["linux"]["namespaces"])
    # On cgroup v1 the child leaves its cgroup namespace itself, after it has joined: else it would see "/name".
    born = tuple(kind for kind in kinds if kind != "cgroup" or layout.version == 2)
    flags = 0
    for kind in born:
        flags |= FLAGS[kind]
    left = (LeaveCgroupNamespace(),) if "cgroup" in kinds and layout.version == 1 else ()
    resources = spec["linux"]["resources"]
    rules = tuple(_device_rule(rule) for rule in resources.get("devices", ()))
    before: list[Step] = [CreateCgroup(cgroup, resources.get("pids", {}).get("limit", -1), rules)]
    if isinstance(root, OverlayMount) and not all(isinstance(lower, str) for lower in root.lowers):
        before.append(OpenLayers(root.lowers))
    if trees := [mount for mount in spec["mounts"] if TREE in mount]:
        from minidock.runtime.tree_steps import open_trees

        before += open_trees(trees)
    return Plan(
        before=tuple(before),
        birth=Clone(born),
        flags=flags,
        beside=tuple(step for step in extra if step.where == "parent"),
        mounts=(JoinCgroup(cgroup), *left, *_mounts(spec, root, layout)),
        inside=tuple(_inside(spec, extra=extra, seccomp_cache=seccomp_cache, kinds=kinds)),
        terminal=bool(spec["process"].get("terminal")),
        args=tuple(spec["process"]["args"]),
    )


def _mounts(spec: dict[str, Any], root: RootMount, layout: cgroups.Layout) -> list[Step]:
    """The tree, mounted in the order that the spec lists (runtime-spec, config.md, "Mounts")."""
    steps: list[Step] = [ms.DetachFromHost(), ms.MountRoot(root, spec["root"]["path"])]
    for mount in spec["mounts"]:
        steps.append(_mount_step(mount, layout))
        if mount["destination"] == "/dev" and mount["type"] == "tmpfs":
            steps.append(ms.MakeDevices(tuple(_device_node(device) for device in spec["linux"].get("devices", ()))))
    return steps


def _inside(
    spec: dict[str, Any],
    *,
    extra: Sequence[Step],
    seccomp_cache: str,
    kinds: Sequence[str],
) -> list[Step]:
    process, linux, annotations = spec["process"], spec["linux"], spec.get("annotations", {})
    steps: list[Step] = [step for step in extra if step.where == "child"]
    if process.get("terminal"):
        steps.append(ps.OpenConsole())
    if spec.get("hostname") and "uts" in kinds:
        steps.append(ps.SetHostname(spec["hostname"]))
    if linux.get("sysctl"):
        steps.append(ps.SetSysctls(tuple(linux["sysctl"].items())))
    limits = process.get("rlimits", ())
    steps += [*raise_limits(limits), ps.SetLimits(read_limits(limits), process.get("oomScoreAdj", 0))]
    if linux.get("readonlyPaths"):
        steps.append(ms.ReadOnlyPaths(tuple(linux["readonlyPaths"])))
    if linux.get("maskedPaths"):
        steps.append(ms.MaskPaths((*linux["maskedPaths"], *_thermal_paths())))
    steps.append(ms.PivotRoot(spec["root"]["path"]))
    steps.append(ps.JoinKeyring(ps.session_keyring(os.path.basename(os.path.dirname(spec["root"]["path"])))))
    groups = tuple(annotations.get(GROUPS, "").split())
    steps.append(ps.ResolveUser(annotations.get(USER, ""), tuple(process["env"]), groups))
    steps.append(ps.EnterDirectory(process["cwd"]))
    if spec["root"].get("readonly"):
        steps.append(ms.ReadOnlyRoot())
    if apparmor := confining(process):
        steps.append(ps.ConfineByAppArmor(apparmor))
    bounding = frozenset(process["capabilities"]["bounding"])
    program = seccomp.program(profile=annotations.get(SECCOMP, "builtin"), bounding=bounding, cache_dir=seccomp_cache)
    steps.append(ps.DropPrivileges(bounding, bool(process.get("noNewPrivileges")), program))
    steps.append(ps.Exec(tuple(process["args"])))
    return steps


def _mount_step(mount: dict[str, Any], layout: cgroups.Layout) -> Step:
    options = parse_options(mount["options"])
    text = ",".join(mount["options"])
    target = mount["destination"]
    if mount["type"] == "cgroup":
        return MountCgroups(layout, target, "ro" in mount["options"])
    if TREE in mount or SECRET in mount:
        from minidock.runtime.tree_steps import tree_step

        return tree_step(mount, options, text)
    if mount["type"] == "bind":
        why = "volumes" if VOLUME in mount else "bind mounts"
        return ms.BindMount(mount["source"], target, options, text, mount.get(SUBPATH, ""), why)
    return ms.MountFilesystem(mount["type"], mount["source"], target, options, text)


def _check_process(process: dict[str, Any]) -> None:
    """Refuse what no exec could be given. Images bring such environments."""
    if not process["args"]:
        raise UsageError("there is no command to run", hint="give it after the image's name")
    for what, values in (("argument", process["args"]), ("environment entry", process["env"])):
        for value in values:
            if "\0" in value:
                raise UsageError(f"invalid {what} {value!r}: it holds a null character")
    if "\0" in process["cwd"]:
        raise UsageError(f"invalid working directory {process['cwd']!r}: it holds a null character")


def _device_rule(rule: dict[str, Any]) -> cgroups.DeviceRule:
    return cgroups.DeviceRule(
        allow=rule["allow"],
        type=rule.get("type", "a"),
        major=rule.get("major"),
        minor=rule.get("minor"),
        access=rule.get("access", "rwm"),
    )


def _device_node(device: dict[str, Any]) -> tuple[str, int, int, int, int, int]:
    kinds = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}
    if not device["path"].startswith("/dev/"):
        raise UsageError(f"device {device['path']!r} is outside of /dev")
    mode = kinds[device["type"]] | device.get("fileMode", 0o666)
    numbers = device.get("major", 0), device.get("minor", 0)
    return (device["path"], mode, *numbers, device.get("uid", 0), device.get("gid", 0))


def read_limits(rlimits: Iterable[dict[str, Any]]) -> tuple[tuple[str, int, int], ...]:
    """The spec's ``process.rlimits`` as (name, soft, hard), with -1 for no limit."""
    return tuple((limit["type"], _rlimit(limit["soft"]), _rlimit(limit["hard"])) for limit in rlimits)


def raise_limits(rlimits: Sequence[dict[str, Any]]) -> tuple[Step, ...]:
    """The step for those of the spec's ``process.rlimits`` that a person asked for, where there are any."""
    asked = [limit for limit in rlimits if limit.get(ASKED)]
    if not asked:
        return ()
    from minidock.runtime.limit_steps import RaiseLimits

    return (RaiseLimits(read_limits(asked)),)


def _rlimit(value: int) -> int:
    """The spec says no limit as the kernel does: all bits set."""
    return -1 if value >= _NO_LIMIT else value


def confining(process: dict[str, Any]) -> str:
    """The AppArmor profile to enter, empty for none: "unconfined" leaves a container as its engine is."""
    profile = str(process.get("apparmorProfile", ""))
    return "" if profile == "unconfined" else profile


def _thermal_paths() -> list[str]:
    """Each processor's thermal_throttle folder tells a container what others do (runtime-spec defaults of 2025)."""
    try:
        names = os.listdir(_THERMAL)
    except OSError:
        return []
    return [f"{_THERMAL}/{name}/thermal_throttle" for name in names if name[:3] == "cpu" and name[3:].isdigit()]


def available_capabilities() -> frozenset[str]:
    """The engine's own bounding set: no container gets more. Raises ContainerStartError without /proc."""
    try:
        return bounding_set()
    except OSError as error:
        raise ContainerStartError(f"cannot read the capabilities of this process: {error.strerror}") from None
