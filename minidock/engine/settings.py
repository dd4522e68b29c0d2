"""From the options of ``create`` and ``run`` to a container's settings: everything that can be wrong is found here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from minidock.errors import UsageError
from minidock.model.container import Settings
from minidock.model.mounts import Mount

if TYPE_CHECKING:
    from typing import Any

NETWORKS = ("bridge", "none", "host")
# Also what a size of 0 means, as in docker: a tmpfs of size 0 would have no limit.
SHM_SIZE = 67108864
_MAX_HOSTNAME = 64
_MAX_BYTES = 2**63 - 1
_MAX_SECONDS = 10**9


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
    shm_size: int = SHM_SIZE,
    tty: bool = False,
    interactive: bool = False,
) -> Settings:
    """The settings for these options.

    Relative host paths are taken from the working directory, and variables without a value from the environment.
    Raises UsageError or MountSpecError, naming the option and the value, before anything has been done.
    """
    _check(workdir=workdir, hostname=hostname, network=network, user=user)
    _check_numbers(shm_size=shm_size, stop_timeout=stop_timeout)
    return Settings(
        image=image,
        command=check_texts(*command),
        name=name,
        env=environment(env),
        workdir=workdir,
        user=user,
        entrypoint=None if entrypoint is None else check_texts(*entrypoint),
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
        shm_size=shm_size or SHM_SIZE,
        tty=tty,
        interactive=interactive,
    )


def check_options(verb: str, options: Mapping[str, Any]) -> None:
    """Raise TypeError for an option that there is not, as a function of that name would."""
    for name in options:
        if name not in (make_settings.__kwdefaults__ or {}):
            raise TypeError(f"{verb}() got an unexpected keyword argument {name!r}")


def _check(*, workdir: str, hostname: str, network: str, user: str) -> None:
    check_texts(workdir, hostname, user)
    if workdir and not workdir.startswith("/"):
        raise UsageError(f"the working directory {workdir!r} is not an absolute path")
    if len(hostname.encode("utf-8", "replace")) > _MAX_HOSTNAME or any(
        char.isspace() or not char.isprintable() for char in hostname
    ):
        raise UsageError(f"invalid host name {hostname!r}", hint="at most 64 bytes of printable text without blanks")
    if network not in NETWORKS:
        raise UsageError(f"network {network!r} is not there yet", hint=f"the networks are {', '.join(NETWORKS)}")
    if user:
        from minidock.model.users import parse_user

        parse_user(user)


def _check_numbers(*, shm_size: int, stop_timeout: int) -> None:
    if not 0 <= shm_size <= _MAX_BYTES:
        raise UsageError(f"invalid shm_size {shm_size}", hint="it is a number of bytes; 0 is 64 MiB")
    if not -1 <= stop_timeout <= _MAX_SECONDS:
        raise UsageError(f"invalid stop_timeout {stop_timeout}", hint="it is a number of seconds, or -1 for ever")


def check_texts(*texts: str) -> tuple[str, ...]:
    """The texts as they are. Raises UsageError for one that no record can hold, or no program can be given."""
    for text in texts:
        if "\0" in text:
            raise UsageError(f"{text!r} holds a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{text.encode('utf-8', 'surrogateescape')!r} is not UTF-8",
                hint="write it in UTF-8: records are kept in it",
            ) from None
    return texts


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
    return check_texts(*result)


def pairs(values: Mapping[str, str] | Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Labels as pairs, from a mapping or from ``NAME=VALUE`` texts; of two with one name the last counts."""
    if isinstance(values, Mapping):
        check_texts(*values, *values.values())
        return tuple(values.items())
    check_texts(*values)
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
        check_texts(mount.source, mount.target)
        if mount.type == "image":
            raise UsageError(f"mount type 'image' is not there yet ({mount.source} on {mount.target})")
    return tuple(result)
