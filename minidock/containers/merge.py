"""What the flags say and what the image says, made one: pure rules, no I/O."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from minidock.containers.signals import parse_signal
from minidock.errors import MountSpecError, UsageError
from minidock.model.mounts import Mount
from minidock.model.spec import DEFAULT_PATH, check_target

if TYPE_CHECKING:
    from minidock.model.container import Settings
    from minidock.model.oci import ImageConfig

DEFAULT_STOP_SIGNAL = "SIGTERM"


def merge_args(settings: Settings, config: ImageConfig) -> tuple[str, ...]:
    """The whole argument vector: entrypoint and command.

    ``--entrypoint`` drops the image's CMD; an empty one clears the image's ENTRYPOINT too. Arguments replace CMD.
    Raises UsageError when nothing is left to run.
    """
    image = config.config
    if settings.entrypoint is None:
        entrypoint = _words(image.get("Entrypoint"))
        command = settings.command or _words(image.get("Cmd"))
    else:
        entrypoint = settings.entrypoint if settings.entrypoint != ("",) else ()
        command = settings.command
    if not entrypoint and not command:
        raise UsageError(
            f"no command specified: image {settings.image!r} has neither ENTRYPOINT nor CMD",
            hint="give the command after the image's name",
        )
    return (*entrypoint, *command)


def merge_env(image_env: Iterable[str], given: Iterable[str]) -> tuple[str, ...]:
    """The image's environment with the flags' on top, each name once, PATH always.

    A flag without ``=`` takes the name out (``-e NAME`` of a variable that the caller has not).
    """
    values: dict[str, str] = {}
    for text in (DEFAULT_PATH, *image_env):
        values[text.partition("=")[0]] = text
    for text in given:
        name = text.partition("=")[0]
        if not name:
            raise UsageError(f"invalid environment variable {text!r}: the name is empty")
        if "=" in text:
            values[name] = text
        else:
            values.pop(name, None)
    values.setdefault("PATH", DEFAULT_PATH)
    return tuple(values.values())


def merge_workdir(settings: Settings, config: ImageConfig) -> str:
    """The working directory, absolute and clean. Raises UsageError for a relative one."""
    path = settings.workdir or str(config.config.get("WorkingDir") or "/")
    if not path.startswith("/"):
        raise UsageError(f"invalid working directory {path!r}: it has to be an absolute path")
    return clean(path)


def merge_labels(settings: Settings, config: ImageConfig) -> tuple[tuple[str, str], ...]:
    labels = {str(key): str(value) for key, value in (config.config.get("Labels") or {}).items()}
    labels.update(settings.labels)
    return tuple(labels.items())


def merge_stop_signal(settings: Settings, config: ImageConfig) -> str:
    """The signal's text as it was given; raises UsageError for one that there is not."""
    text = settings.stop_signal or str(config.config.get("StopSignal") or "") or DEFAULT_STOP_SIGNAL
    parse_signal(text)
    return text


def merge_mounts(settings: Settings, config: ImageConfig, inherited: Iterable[Mount] = ()) -> tuple[Mount, ...]:
    """All mounts in the order in which they are made, shallow ones first.

    Of two on one target the flags' own win over ``inherited`` ones (``--volumes-from``), and those over the image's
    VOLUMEs. Volumes without a name have none yet. Raises MountSpecError for two of the flags' own on one target, and
    for targets where none may be.
    """
    mounts: dict[str, Mount] = {}
    for mount in settings.mounts:
        target = check_target(mount.target)
        if target in mounts:
            raise MountSpecError(
                f"duplicate mount point: {target}",
                hint=f"{mounts[target].origin} and {mount.origin} name the same target: keep one of them",
            )
        anonymous = mount.type == "volume" and not mount.source
        mounts[target] = mount._replace(target=target, anonymous=anonymous)
    for mount in inherited:
        mounts.setdefault(mount.target, mount)
    for path in config.config.get("Volumes") or {}:
        target = clean(str(path))
        if target not in mounts:
            mounts[target] = Mount("volume", "", check_target(target), anonymous=True, create=True, origin="VOLUME")
    return tuple(sorted(mounts.values(), key=lambda mount: mount.target.count("/")))


def exposed_ports(config: ImageConfig) -> tuple[str, ...]:
    return tuple(sorted(str(port) for port in config.config.get("ExposedPorts") or {}))


def clean(path: str) -> str:
    """The path absolute and without ``.``, ``..`` and doubled slashes, as text only."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _words(value: Any) -> Sequence[str]:
    if value is None:
        return ()
    return tuple(str(word) for word in value) if isinstance(value, list) else (str(value),)
