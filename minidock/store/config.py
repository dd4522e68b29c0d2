"""The configuration file: TOML, ``/etc/minidock/config.toml`` or what MINIDOCK_CONFIG names.

root = "/var/lib/minidock"      # the data root
storage_driver = "overlay2"
layers = "auto"                 # tarball: mount layers from their tarballs; tree: unpack them; auto: as the kernel can
loop_devices = false            # mount tarballs through loop devices where the kernel mounts no files
keep = false                    # keep writable layers until `rm`
debug = false
default_registry = ""           # serves the names without a host; empty: Docker Hub
insecure_registries = []        # HOST[:PORT] that may be spoken to without TLS, or with any certificate
registry_certificates = ["/etc/minidock/certs.d", "/etc/docker/certs.d"]  # HOST[:PORT]/*.crt: further authorities

[registry_mirrors]              # who is asked before a registry, in this order
"docker.io" = ["mirror.example"]
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minidock.errors import UsageError
from minidock.store.layout import DEFAULT_ROOT

DEFAULT_PATH = "/etc/minidock/config.toml"
ROOT_VARIABLE = "MINIDOCK_ROOT"
CONFIG_VARIABLE = "MINIDOCK_CONFIG"


_BOOLEAN, _LIST, _TABLE = "true or false", "a list of strings", "a table of lists of strings"
_KINDS = {bool: _BOOLEAN, str: "a string", tuple: _LIST, dict: _TABLE}


class Config(NamedTuple):
    """What the configuration file says; each field is a key of it. An empty ``storage_driver`` lets the host decide."""

    root: str = DEFAULT_ROOT
    storage_driver: str = ""
    layers: str = "auto"
    loop_devices: bool = False
    keep: bool = False
    debug: bool = False
    default_registry: str = ""
    insecure_registries: tuple[str, ...] = ()
    registry_certificates: tuple[str, ...] = ("/etc/minidock/certs.d", "/etc/docker/certs.d")
    registry_mirrors: Mapping[str, Sequence[str]] = {}


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


def _is_of(kind: str, item: object) -> bool:
    if kind == _TABLE:
        return isinstance(item, dict) and all(_is_of(_LIST, value) for value in item.values())
    if kind == _LIST:
        return isinstance(item, list) and all(isinstance(value, str) for value in item)
    return isinstance(item, bool if kind == _BOOLEAN else str)


def _checked(path: str, value: Mapping[str, Any]) -> Config:
    for key, item in value.items():
        if key not in Config._fields:
            raise UsageError(f"{path}: unknown key {key!r}", hint=f"the keys are {', '.join(Config._fields)}")
        kind = _KINDS[type(Config._field_defaults[key])]
        if not _is_of(kind, item):
            raise UsageError(f"{path}: {key} must be {kind}, not {item!r}")
    config = Config(**value)
    if not os.path.isabs(config.root):
        raise UsageError(f"{path}: root must be an absolute path, not {config.root!r}")
    return config
