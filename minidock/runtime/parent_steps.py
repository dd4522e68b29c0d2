"""Steps of the parent: the cgroup and the birth of the child."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import ContainerStartError
from minidock.kernel import namespaces as ns

if TYPE_CHECKING:
    from minidock.kernel.cgroups import DeviceRule
    from minidock.model.steps import LayerMount
    from minidock.runtime.context import ParentContext

FLAGS = {
    "mount": ns.CLONE_NEWNS,
    "pid": ns.CLONE_NEWPID,
    "network": ns.CLONE_NEWNET,
    "ipc": ns.CLONE_NEWIPC,
    "uts": ns.CLONE_NEWUTS,
    "cgroup": ns.CLONE_NEWCGROUP,
}


class CreateCgroup(NamedTuple):
    """Make the container's own cgroup with its limits and device rules; without the rules nothing starts."""

    name: str
    pids: int
    devices: tuple[DeviceRule, ...]
    where: str = "parent"
    why: str = "resources and devices"

    def describe(self) -> str:
        allowed = " ".join(_rule_text(rule) for rule in self.devices if rule.allow)
        return f"cgroup {self.name}: pids.max {self.pids}; devices {allowed or 'none'}"

    def execute(self, context: ParentContext) -> None:
        from minidock.kernel import cgroups

        cgroup = cgroups.create(self.name)
        context.cgroup = cgroup
        try:
            cgroup.set_devices(self.devices)
            cgroup.set_pids_max(self.pids)
        except OSError as error:
            raise ContainerStartError(
                f"cannot set the limits of cgroup {self.name}: {error.strerror}: {error.filename or ''}".rstrip(": ")
            ) from None


class OpenLayers(NamedTuple):
    """Open the layers that are mounted from their tarballs: from inside, the child could not reach their mounts."""

    lowers: tuple[str | LayerMount, ...]
    where: str = "parent"
    why: str = "layers"

    def describe(self) -> str:
        tars = [lower.tar for lower in self.lowers if not isinstance(lower, str)]
        return f"open the layers mounted from their tarballs: {' '.join(tars)}"

    def execute(self, context: ParentContext) -> None:
        from minidock.kernel.lowers import open_lowers

        context.lowers = open_lowers(self.lowers)


class Clone(NamedTuple):
    """Give birth to the container's first process in namespaces of its own (clone3(2)); the launcher does it."""

    kinds: tuple[str, ...]
    where: str = "parent"
    why: str = "namespaces"

    def describe(self) -> str:
        return "clone3 with new namespaces: " + " ".join(self.kinds)

    def execute(self, context: ParentContext) -> None:
        del context
        raise AssertionError("the launcher gives birth to the child itself")


def _rule_text(rule: DeviceRule) -> str:
    numbers = ":".join("*" if number is None else str(number) for number in (rule.major, rule.minor))
    return f"{rule.type}-{numbers}-{rule.access}"
