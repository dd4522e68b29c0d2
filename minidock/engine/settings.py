"""From the options of ``create`` and ``run`` to a container's settings: everything that can be wrong is found here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from minidock.errors import UsageError
from minidock.model.container import Settings
from minidock.model.mounts import Mount

if TYPE_CHECKING:
    from typing import Any, Unpack

    from minidock.engine.options import CreateOptions

NETWORKS = ("bridge", "none", "host")
# Also what a size of 0 means, as in docker: a tmpfs of size 0 would have no limit.
SHM_SIZE = 67108864
_AS_GIVEN = (
    *("name", "workdir", "user", "hostname", "read_only", "keep", "auto_remove", "privileged", "network", "init"),
    *("stop_signal", "stop_timeout", "tty", "interactive"),
)
_TEXTS = (
    *("volumes_from", "cap_add", "cap_drop", "security_opt", "ulimits", "devices", "device_cgroup_rules"),
    "group_add",
)
_OTHERS = ("env", "entrypoint", "labels", "volumes", "mounts", "tmpfs", "shm_size", "sysctls", "platform", "pull")
_OPTIONS = {*_AS_GIVEN, *_TEXTS, *_OTHERS}
_MAX_HOSTNAME = 64
_MAX_BYTES = 2**63 - 1
_MAX_SECONDS = 10**9


def make_settings(image: str, command: Sequence[str], **options: Unpack[CreateOptions]) -> Settings:
    """The settings for these options.

    Relative host paths are taken from the working directory, and variables without a value from the environment.
    Raises UsageError or MountSpecError, naming the option and the value, before anything has been done.
    """
    check_options("make_settings", options)
    given: Mapping[str, Any] = options
    values = {name: given[name] for name in _AS_GIVEN if name in given}
    values |= {name: check_texts(*given[name]) for name in _TEXTS if name in given}
    entrypoint = given.get("entrypoint")
    if values.get("security_opt"):
        from minidock.model.security import with_whole_paths

        values["security_opt"] = with_whole_paths(values["security_opt"], cwd=os.getcwd())
    settings = Settings(
        image=image,
        command=check_texts(*command),
        env=environment(given.get("env", ())),
        entrypoint=None if entrypoint is None else check_texts(*entrypoint),
        labels=pairs(given.get("labels", ())),
        mounts=_mounts(given.get("volumes", ()), given.get("mounts", ()), given.get("tmpfs", ())),
        shm_size=given.get("shm_size") or SHM_SIZE,
        sysctls=_sysctls(given.get("sysctls", ())),
        **values,
    )
    _check(settings)
    return settings


def check_options(verb: str, options: Iterable[str]) -> None:
    """Raise TypeError for an option that there is not, as a function of that name would."""
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(f"{verb}() got an unexpected keyword argument {name!r}")


def _check(settings: Settings) -> None:
    workdir, hostname = settings.workdir, settings.hostname
    check_texts(workdir, hostname, settings.user)
    if workdir and not workdir.startswith("/"):
        raise UsageError(f"the working directory {workdir!r} is not an absolute path")
    if len(hostname.encode("utf-8", "replace")) > _MAX_HOSTNAME or any(
        char.isspace() or not char.isprintable() for char in hostname
    ):
        raise UsageError(f"invalid host name {hostname!r}", hint="at most 64 bytes of printable text without blanks")
    if settings.network not in NETWORKS:
        raise UsageError(
            f"network {settings.network!r} is not there yet", hint=f"the networks are {', '.join(NETWORKS)}"
        )
    if settings.user:
        from minidock.model.users import parse_user

        parse_user(settings.user)
    if not 0 <= settings.shm_size <= _MAX_BYTES:
        raise UsageError(f"invalid shm_size {settings.shm_size}", hint="it is a number of bytes; 0 is 64 MiB")
    if not -1 <= settings.stop_timeout <= _MAX_SECONDS:
        raise UsageError(
            f"invalid stop_timeout {settings.stop_timeout}", hint="it is a number of seconds, or -1 for ever"
        )


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


def _sysctls(values: Mapping[str, str] | Sequence[str]) -> tuple[str, ...]:
    if isinstance(values, Mapping):
        values = [f"{name}={value}" for name, value in values.items()]
    return check_texts(*values)


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
