"""``explain run``: the plan of a run, with placeholders for what only the run itself knows; nothing is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.containers import launching
from minidock.containers.create import check_sources, inherited_mounts, plan_record, read_profile
from minidock.engine.containers import check_platform, settings_of
from minidock.engine.listings import ExplainedStep
from minidock.engine.parts import make_parts
from minidock.model.spec import container_spec
from minidock.network.bridge import BridgeNetwork
from minidock.network.leases import Lease
from minidock.runtime.plan import available_capabilities, plan
from minidock.store.images import Images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.containers.parts import Parts
    from minidock.engine.base import EngineBase
    from minidock.model.container import Record
    from minidock.model.steps import Step

ID = "<ID>"
ADDRESS = "<ADDRESS>"
GENERATED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


def explain(engine: EngineBase, image: str, command: Sequence[str], options: Mapping[str, Any]) -> list[ExplainedStep]:
    """The steps of a run in their order. Raises what ``create`` raises."""
    settings = settings_of(engine, image, command, options)
    parts = make_parts(engine, driver=engine.driver)
    assert parts.rootfs is not None, "the driver is open"
    check_sources(settings.mounts, parts.volumes)
    found = Images(parts.root).get(image)
    check_platform(engine, found, image, options)
    record = plan_record(
        settings,
        image_id=found.origin or found.id,
        config=found.config,
        driver=parts.rootfs.driver.name,
        inherited=inherited_mounts(parts, settings.volumes_from),
        container_id=ID,
        created=1,
    )
    directory = parts.root.container_dir(ID)
    read_profile(settings, parts)
    nodes, rules = launching.devices_of(settings)
    spec = container_spec(
        record,
        rootfs=f"{directory}/rootfs",
        files=[(target, f"{directory}/{target[5:]}") for target in GENERATED if target not in _taken(record)],
        volume_path=lambda name: f"{parts.root.volumes}/{name}/_data",
        available=available_capabilities(),
        devices=nodes,
        device_rules=rules,
        cgroups_path=f"/minidock/{ID}",
        init=launching.find_init() if settings.init else "",
    )
    steps = plan(
        spec,
        root=parts.rootfs.mounts(record.diff_ids, directory),
        extra=_network_steps(parts, record),
        cgroup=ID,
        seccomp_cache=f"{parts.root.cache}/seccomp",
    ).steps
    return [ExplainedStep(step.where, step.why, step.describe()) for step in steps]


def _taken(record: Record) -> set[str]:
    return {mount.target for mount in record.mounts}


def _network_steps(parts: Parts, record: Record) -> Sequence[Step]:
    network = BridgeNetwork(state_dir=parts.root.networks, log=parts.log)
    if record.settings.network == "host":
        return ()
    if record.settings.network == "none":
        return (network.loopback_step(),)
    bridge = network.foreseen()._replace(gateway="<GATEWAY>")
    return network.attach_steps(bridge, Lease(ADDRESS, "<MAC>", "", "<LINK>"))
