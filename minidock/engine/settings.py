"""From the options of ``create`` and ``run`` to a container's settings: everything that can be wrong is found here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from minidock.errors import UsageError
from minidock.model.container import Settings
from minidock.model.mounts import Mount

NETWORKS = ("bridge", "none", "host")
_MAX_HOSTNAME = 64


def make_settings(
    image: str,
    command: Sequence[str],
    *,
    name: str = "",
    env: Mapping[str, str] | Sequence[str] = (),
    workdir: str = "",
    user: str = "",
    entrypoint: Sequence[str] | None = None,
    hostname: str = "",
    labels: Mapping[str, str] | Sequence[str] = (),
    volumes: Sequence[str] = (),
    mounts: Sequence[str | Mount] = (),
    tmpfs: Sequence[str] = (),
    read_only: bool = False,
    keep: bool = False,
    auto_remove: bool = False,
    cap_add: Sequence[str] = (),
    cap_drop: Sequence[str] = (),
    privileged: bool = False,
    security_opt: Sequence[str] = (),
    network: str = "bridge",
    init: bool = False,
    stop_signal: str = "",
    stop_timeout: int = 10,
    shm_size: int = 67108864,
    tty: bool = False,
    interactive: bool = False,
) -> Settings:
    """The settings for these options.

    Relative host paths are taken from the working directory, and variables without a value from the environment.
    Raises UsageError or MountSpecError, naming the option and the value, before anything has been done.
    """
    _check(workdir=workdir, hostname=hostname, network=network, user=user)
    return Settings(
        image=image,
        command=tuple(command),
        name=name,
        env=environment(env),
        workdir=workdir,
        user=user,
        entrypoint=None if entrypoint is None else tuple(entrypoint),
        hostname=hostname,
        labels=pairs(labels),
        mounts=_mounts(volumes, mounts, tmpfs),
        read_only=read_only,
        keep=keep,
        auto_remove=auto_remove,
        cap_add=tuple(cap_add),
        cap_drop=tuple(cap_drop),
        privileged=privileged,
        security_opt=tuple(security_opt),
        network=network,
        init=init,
        stop_signal=stop_signal,
        stop_timeout=stop_timeout,
        shm_size=shm_size,
        tty=tty,
        interactive=interactive,
    )


def _check(*, workdir: str, hostname: str, network: str, user: str) -> None:
    if workdir and not workdir.startswith("/"):
        raise UsageError(f"the working directory {workdir!r} is not an absolute path")
    if len(hostname) > _MAX_HOSTNAME or any(char.isspace() or not char.isprintable() for char in hostname):
        raise UsageError(f"invalid host name {hostname!r}", hint="at most 64 printable characters without blanks")
    if network not in NETWORKS:
        raise UsageError(f"network {network!r} is not there yet", hint=f"the networks are {', '.join(NETWORKS)}")
    if user:
        from minidock.model.users import parse_user

        parse_user(user)


def environment(values: Mapping[str, str] | Sequence[str]) -> tuple[str, ...]:
    """``NAME=VALUE`` texts; a name alone takes the value that this process has, and stays alone where it has none."""
    if isinstance(values, Mapping):
        values = [f"{name}={value}" for name, value in values.items()]
    result: list[str] = []
    for text in values:
        name, equals, _ = text.partition("=")
        if not name or "\0" in text:
            raise UsageError(f"invalid environment variable {text!r}", hint="the form is NAME=VALUE")
        result.append(f"{name}={os.environ[name]}" if not equals and name in os.environ else text)
    return tuple(result)


def pairs(values: Mapping[str, str] | Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Labels as pairs, from a mapping or from ``NAME=VALUE`` texts; of two with one name the last counts."""
    if isinstance(values, Mapping):
        return tuple(values.items())
    result: dict[str, str] = {}
    for text in values:
        name, _, value = text.partition("=")
        if not name:
            raise UsageError(f"invalid label {text!r}", hint="the form is NAME=VALUE")
        result[name] = value
    return tuple(result.items())


def _mounts(volumes: Sequence[str], mounts: Sequence[str | Mount], tmpfs: Sequence[str]) -> tuple[Mount, ...]:
    if not volumes and not mounts and not tmpfs:
        return ()
    from minidock.model.mounts import parse_mount_flag, parse_tmpfs_flag, parse_volume_flag

    cwd = os.getcwd()
    result = [parse_volume_flag(text, cwd=cwd) for text in volumes]
    result += [mount if isinstance(mount, Mount) else parse_mount_flag(mount, cwd=cwd) for mount in mounts]
    result += [parse_tmpfs_flag(text) for text in tmpfs]
    for mount in result:
        if mount.type == "image":
            raise UsageError(f"mount type 'image' is not there yet ({mount.source} on {mount.target})")
    return tuple(result)
