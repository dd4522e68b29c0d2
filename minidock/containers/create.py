"""Making a container: flags and image become a record, the record appears in the store, its volumes are made.

Everything that can be refused is refused before anything is made. Then, in this order:

1. the layers are made ready; the folder is assembled under ``tmp/`` (record, state, empty writable layer, the mark
   ``volumes-pending``) and appears by one rename - killed before: staging that the next sweep removes;
2. missing volumes are made and empty ones filled from the image; then the mark is removed - killed here: a created
   container that names all its volumes and bears the mark. ``start`` does step 2 again, ``rm`` removes the container
   with the anonymous volumes that there are; none is left that no record names. One that ``run --rm`` was about to
   start is removed by the next command that looks (``claim``).

When a step fails, the record and the anonymous volumes are removed again; a named volume that was made stays, as with a
container that was created and removed.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from minidock.containers import merge, rest, status
from minidock.containers.launching import NETWORKS, PROFILE, unknown_network
from minidock.errors import MountSpecError, NoSuchVolumeError, UsageError
from minidock.model.capabilities import ALL, effective_set
from minidock.model.container import Record, State
from minidock.model.names import check_name
from minidock.store.containers import new_id
from minidock.store.files import unlink_if_there

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.containers.claim import Claim
    from minidock.containers.parts import Parts
    from minidock.model.container import Settings
    from minidock.model.mounts import Mount
    from minidock.model.oci import ImageConfig
    from minidock.rootfs import Rootfs
    from minidock.volumes.volumes import Volumes

PENDING = "volumes-pending"
_LEFT = "brave calm clever eager fond gifted happy keen kind lucid merry modest noble proud quiet sharp swift wise"
_RIGHT = "babbage bohr curie darwin dijkstra einstein euler fermi galileo gauss hopper kepler lovelace noether turing"


def create(
    settings: Settings,
    *,
    image_id: str,
    config: ImageConfig,
    driver: str,
    parts: Parts,
    claim: Claim | None = None,
) -> Record:
    """Make a container from an image's configuration; it is ready for ``start``.

    ``image_id`` is the configuration's digest, ``driver`` the storage driver's name; ``claim`` is for a caller that
    starts the container itself, so that nothing of a ``--rm`` one is left when it is killed before. Raises UsageError,
    NoSuchVolumeError (exit status 125) and MountSpecError before any side effect, ConflictError for a name that is
    taken, StoreError.
    """
    inherited = inherited_mounts(parts, settings.volumes_from)
    record = plan_record(settings, image_id=image_id, config=config, driver=driver, inherited=inherited)
    check_sources(record.mounts, parts.volumes)
    profile = read_profile(settings, parts)
    rootfs = _rootfs(parts)
    rootfs.ensure(record.diff_ids)
    _make_bind_sources(record.mounts, parts)

    def fill(directory: str) -> None:
        rootfs.prepare(record.diff_ids, directory)
        if claim is not None and settings.auto_remove:
            claim.take(directory)
        if profile:
            with open(f"{directory}/{PROFILE}", "xb") as file:
                file.write(profile)
        if any(mount.type == "volume" for mount in record.mounts):
            os.close(os.open(f"{directory}/{PENDING}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    parts.containers.create(record, State(), fill)
    try:
        make_volumes(parts, record)
    except BaseException:
        rest.remove_record(parts, record)
        raise
    return record


def inherited_mounts(parts: Parts, texts: Sequence[str]) -> tuple[Mount, ...]:
    """The binds and volumes of other containers, running or not, for ``--volumes-from NAME[:ro|rw]``; later ones win.

    None of them is made, filled or owned by the new container. Raises NoSuchContainerError, UsageError.
    """
    mounts: dict[str, Mount] = {}
    for text in texts:
        name, colon, mode = text.partition(":")
        if colon and mode not in {"ro", "rw"}:
            raise UsageError(f"invalid mode {mode!r} in --volumes-from {text!r}", hint="the modes are ro and rw")
        for mount in status.find(parts, name)[0].mounts:
            if mount.type != "tmpfs":
                mounts[mount.target] = mount._replace(
                    read_only=mount.read_only or mode == "ro",
                    nocopy=True,
                    create=False,
                    anonymous=False,
                    labels=(),
                    origin="--volumes-from",
                )
    return tuple(mounts.values())


def plan_record(
    settings: Settings,
    *,
    image_id: str,
    config: ImageConfig,
    driver: str,
    inherited: Sequence[Mount] = (),
    container_id: str = "",
    created: int = 0,
) -> Record:
    """The record that ``create`` would write, with nothing made. ``container_id`` and ``created`` are for ``explain``.

    Raises UsageError and MountSpecError.
    """
    _check_walls(settings)
    container_id = container_id or new_id()
    name = check_name(settings.name, kind="container") if settings.name else random_name()
    mounts = tuple(
        mount._replace(source=os.urandom(32).hex()) if mount.anonymous else mount
        for mount in merge.merge_mounts(settings, config, inherited)
    )
    hostname = settings.hostname or (os.uname().nodename if settings.network == "host" else container_id[:12])
    return Record(
        id=container_id,
        name=name,
        created=created or time.time_ns(),
        image=settings.image,
        image_id=image_id,
        diff_ids=config.diff_ids,
        driver=driver,
        args=merge.merge_args(settings, config),
        env=merge.merge_env(config.config.get("Env") or (), settings.env),
        workdir=merge.merge_workdir(settings, config),
        user=settings.user or str(config.config.get("User") or ""),
        hostname=hostname,
        labels=merge.merge_labels(settings, config),
        mounts=mounts,
        anonymous=tuple(mount.source for mount in mounts if mount.anonymous),
        exposed_ports=merge.exposed_ports(config),
        stop_signal=merge.merge_stop_signal(settings, config),
        settings=settings,
    )


def _check_walls(settings: Settings) -> None:
    """Refuse at once what the start would refuse: networks, capabilities and what else makes the walls."""
    if settings.network not in NETWORKS:
        raise unknown_network(settings.network)
    effective_set(add=settings.cap_add, drop=settings.cap_drop, available=frozenset(ALL))
    given = settings.security_opt, settings.ulimits, settings.sysctls, settings.group_add
    if any(given) or settings.devices or settings.device_cgroup_rules:
        from minidock.containers.walls import check_walls

        check_walls(settings)


def read_profile(settings: Settings, parts: Parts) -> bytes:
    """The bytes of the seccomp profile that ``--security-opt`` names, empty where it names none; see ``walls``."""
    if not settings.security_opt:
        return b""
    from minidock.containers import walls

    return walls.read_profile(settings, parts)


def random_name() -> str:
    """A name that a person can say and that nobody else has, by eight random hexadecimal digits."""
    numbers = os.urandom(2)
    left, right = _LEFT.split(), _RIGHT.split()
    return f"{left[numbers[0] % len(left)]}_{right[numbers[1] % len(right)]}_{os.urandom(4).hex()}"


def check_sources(mounts: Sequence[Mount], volumes: Volumes) -> None:
    """Refuse volumes and bind sources that are missing and that nobody asked to make; nothing is made.

    Called before an image is even looked for. Raises NoSuchVolumeError and MountSpecError, both of exit status 125.
    """
    for mount in mounts:
        if mount.type == "volume" and mount.source and not (mount.create or mount.anonymous):
            if not volumes.exists(mount.source):
                raise _missing_volume(mount.source)
        elif mount.type == "bind" and not mount.create and not os.path.lexists(mount.source):
            raise missing_bind_source(mount.source)


def missing_bind_source(path: str) -> MountSpecError:
    return MountSpecError(
        f'invalid mount config for type "bind": bind source path does not exist: {path}',
        hint="make it first, or use -v, which makes a directory",
    )


def make_volumes(parts: Parts, record: Record) -> None:
    """Step 2 of ``create``, and of a ``start`` after one that was killed: make what is missing, fill what is empty."""
    mounts = [mount for mount in record.mounts if mount.type == "volume"]
    sync = not record.settings.auto_remove
    wanting: list[Mount] = []
    for mount in mounts:
        durable = sync or not mount.anonymous
        make = mount.create or mount.anonymous
        try:
            parts.volumes.ensure(mount.source, labels=mount.labels, anonymous=mount.anonymous, sync=durable, make=make)
        except NoSuchVolumeError:
            raise _missing_volume(mount.source) from None
        if not mount.nocopy and not mount.subpath and parts.volumes.is_empty(mount.source):
            wanting.append(mount)
    if wanting:
        with _rootfs(parts).open_root(record.diff_ids, None) as root_fd:
            for mount in wanting:
                parts.volumes.populate(mount.source, root_fd, mount.target, sync=sync or not mount.anonymous)
    if mounts:
        unlink_if_there(f"{parts.root.container_dir(record.id)}/{PENDING}")


def volumes_pending(parts: Parts, record: Record) -> bool:
    return os.path.exists(f"{parts.root.container_dir(record.id)}/{PENDING}")


def _make_bind_sources(mounts: Sequence[Mount], parts: Parts) -> None:
    """``-v`` of a host path that is missing makes a directory of root's, as docker does, and says so."""
    for mount in mounts:
        if mount.type == "bind" and mount.create and not os.path.lexists(mount.source):
            try:
                os.makedirs(mount.source, 0o755, exist_ok=True)
            except OSError as error:
                raise MountSpecError(f"cannot make the bind source {mount.source}: {error.strerror}") from error
            parts.log.notice(f"made the missing directory {mount.source} ({mount.origin})")


def _missing_volume(name: str) -> NoSuchVolumeError:
    error = NoSuchVolumeError(
        f'volume "{name}" does not exist',
        hint=f'--mount does not create volumes; run "minidock volume create {name}" or use -v',
    )
    error.exit_status = 125
    return error


def _rootfs(parts: Parts) -> Rootfs:
    if parts.rootfs is None:
        raise AssertionError("a container is made with a root file system at hand")
    return parts.rootfs
