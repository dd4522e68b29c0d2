"""The configuration file: TOML, ``/etc/minidock/config.toml`` or what MINIDOCK_CONFIG names.

root = "/var/lib/minidock"      # the data root
storage_driver = "overlay2"
layers = "auto"                 # tarball: mount layers from their tarballs; tree: unpack them; auto: as the kernel can
loop_devices = false            # mount tarballs through loop devices where the kernel mounts no files
keep = false                    # keep writable layers until `rm`
debug = false
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from minidock.errors import UsageError
from minidock.store.layout import DEFAULT_ROOT

DEFAULT_PATH = "/etc/minidock/config.toml"
ROOT_VARIABLE = "MINIDOCK_ROOT"
CONFIG_VARIABLE = "MINIDOCK_CONFIG"


class Config(NamedTuple):
    """What the configuration file says; each field is a key of it. An empty ``storage_driver`` lets the host decide."""

    root: str = DEFAULT_ROOT
    storage_driver: str = ""
    layers: str = "auto"
    loop_devices: bool = False
    keep: bool = False
    debug: bool = False


def load_config(environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration; a missing file means the defaults, unless MINIDOCK_CONFIG names it.

    MINIDOCK_ROOT stands above the file's ``root``. Raises UsageError naming the file and the key that is wrong.
    """
    variables = os.environ if environ is None else environ
    named = variables.get(CONFIG_VARIABLE, "")
    config = _read(named or DEFAULT_PATH, must_exist=bool(named))
    root = variables.get(ROOT_VARIABLE, "")
    return config._replace(root=root) if root else config


def _read(path: str, *, must_exist: bool) -> Config:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        if must_exist:
            raise UsageError(
                f"there is no configuration file {path}", hint=f"it is named by the variable {CONFIG_VARIABLE}"
            ) from None
        return Config()
    except OSError as error:
        raise UsageError(f"cannot read the configuration file {path}: {error.strerror}") from error
    import tomllib

    try:
        value = tomllib.loads(data.decode())
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    return _checked(path, value)


def _checked(path: str, value: Mapping[str, Any]) -> Config:
    for key, item in value.items():
        if key not in Config._fields:
            raise UsageError(f"{path}: unknown key {key!r}", hint=f"the keys are {', '.join(Config._fields)}")
        wanted = type(Config._field_defaults[key])
        if type(item) is not wanted:
            kind = "true or false" if wanted is bool else "a string"
            raise UsageError(f"{path}: {key} must be {kind}, not {item!r}")
    config = Config(**value)
    if not os.path.isabs(config.root):
        raise UsageError(f"{path}: root must be an absolute path, not {config.root!r}")
    return config
