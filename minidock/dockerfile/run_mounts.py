"""The grammar of ``RUN --mount=KEY=VALUE,...``: one CSV record (RFC 4180) that becomes a typed value.

Every error is a DockerfileError without a place; who reads an instruction adds it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Any

from minidock.dockerfile.suggest import did_you_mean
from minidock.errors import DockerfileError, MountSpecError
from minidock.model.mounts import csv_record, parse_size
from minidock.model.run_mounts import BIND, CACHE, SECRET, SHARINGS, SSH, TMPFS, TYPES, RunMount

_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_OF_TYPE = {
    BIND: ("target", "source", "from", "readonly", "readwrite"),
    CACHE: ("target", "id", "sharing", "source", "from", "readonly", "readwrite", "mode", "uid", "gid"),
    TMPFS: ("target", "size", "readonly", "readwrite"),
    SECRET: ("id", "source", "target", "env", "required", "readonly", "mode", "uid", "gid"),
    SSH: ("id", "target", "required", "readonly", "mode", "uid", "gid"),
}
_KEYS = tuple(dict.fromkeys(("type", *(key for keys in _OF_TYPE.values() for key in keys))))
_SWITCHES = ("readonly", "readwrite", "required")
_NEEDS_TARGET = (BIND, CACHE, TMPFS)
# What docker reads as a truth value (Go's strconv.ParseBool).
_TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ID = re.compile(r"[^\0\n\r]{1,4096}")
_MOST_ID = 2**31 - 1
_MOST_BYTES = 2**63 - 1


def read_mount(text: str) -> RunMount:
    """The mount that ``text``, with its variables expanded, asks for."""
    values = _values(text)
    kind = values.pop("type", BIND).lower()
    if kind not in TYPES:
        raise DockerfileError(
            f"unsupported mount type {kind!r} in --mount={text}",
            hint=did_you_mean(kind, TYPES) or f"the types are {', '.join(TYPES)}",
        )
    for key in values:
        if key not in _OF_TYPE[kind]:
            types = " and ".join(name for name in TYPES if key in _OF_TYPE[name])
            raise DockerfileError(
                f"{key} is not allowed for a mount of type {kind}, in --mount={text}",
                hint=f"{key} is for type {types}; {kind} takes {', '.join(_OF_TYPE[kind])}",
            )
    if "readonly" in values and "readwrite" in values:
        raise DockerfileError(f"readonly and readwrite are both given in --mount={text}", hint="give one of them")
    if kind in _NEEDS_TARGET and not values.get("target"):
        raise DockerfileError(f"the mount of type {kind} has no target in --mount={text}", hint="add target=PATH")
    mount = RunMount(
        kind,
        values.get("target", ""),
        values.get("source", ""),
        values.get("from", ""),
        read_only=_read_only(kind, values, text),
        **_numbers(values, text),
    )
    return _OTHERS[kind](mount, values, text)


def check_mount(text: str) -> None:
    """Check a mount whose variables are not expanded yet, as far as that goes."""
    values = _values(text)
    if not any(char in value for value in values.values() for char in "$\\'\""):
        read_mount(text)


def expanded_mount(text: str, expand: Callable[[str], str]) -> str:
    """``text`` with every value but that of ``from`` expanded; a variable there is an error."""
    found: list[str] = []
    for field in _fields(text):
        key, equals, value = field.partition("=")
        if _key(key) == "from":
            if "$" in value:
                raise DockerfileError(
                    f"variables are not expanded in from={value} of --mount",
                    hint="name a stage: FROM IMAGE-WITH-ARG AS NAME, then from=NAME",
                )
        elif equals:
            field = f"{key}={expand(value)}"  # noqa: PLW2901 - the same field, expanded
        found.append(_quoted(field))
    return ",".join(found)


def source_name(text: str) -> str:
    """What ``from`` of a mount names, expanded or not; empty where it has none."""
    return _values(text).get("from", "")


def _fields(text: str) -> list[str]:
    try:
        return csv_record(text)
    except MountSpecError as error:
        raise DockerfileError(f"cannot read --mount={text}: it is not one record of CSV", hint=error.hint) from None


def _quoted(field: str) -> str:
    if not any(char in field for char in ',"\n'):
        return field
    doubled = field.replace('"', '""')
    return f'"{doubled}"'


def _key(text: str) -> str:
    return _ALIASES.get(text.lower(), text.lower())


def _values(text: str) -> dict[str, str]:
    """The values by key, each once; a switch that stands alone is true."""
    values: dict[str, str] = {}
    for field in _fields(text):
        written, equals, value = field.partition("=")
        key = _key(written)
        if not field:
            raise DockerfileError(f"a field is empty in --mount={text}", hint="the form is KEY=VALUE,KEY=VALUE")
        if key not in _KEYS:
            known = (*_KEYS, *_ALIASES)
            raise DockerfileError(
                f"unknown key {written!r} in --mount={text}",
                hint=did_you_mean(written, known) or f"the keys are {', '.join(_KEYS)}",
            )
        if key in values:
            raise DockerfileError(f"{key} is given twice in --mount={text}", hint="give it once")
        if not equals and key not in _SWITCHES:
            raise DockerfileError(f"{written!r} has no value in --mount={text}", hint=f"write {key}=VALUE")
        values[key] = value if equals else "true"
    return values


def _read_only(kind: str, values: dict[str, str], text: str) -> bool:
    if "readonly" in values:
        return _truth("readonly", values["readonly"], text)
    if "readwrite" in values:
        return not _truth("readwrite", values["readwrite"], text)
    return kind not in (CACHE, TMPFS)


def _truth(key: str, value: str, text: str) -> bool:
    if value not in _TRUTHS:
        raise DockerfileError(f"invalid value {value!r} of {key} in --mount={text}", hint="it is true or false")
    return _TRUTHS[value]


def _numbers(values: dict[str, str], text: str) -> dict[str, Any]:
    """Mode, owner and size, as far as they are given."""
    found: dict[str, Any] = {}
    if "mode" in values:
        if not re.fullmatch(r"0*[0-7]{1,4}", values["mode"]):
            raise DockerfileError(
                f"invalid value {values['mode']!r} of mode in --mount={text}", hint="write octal digits, such as 0400"
            )
        found["mode"] = int(values["mode"], 8)
    for key in ("uid", "gid"):
        value = values.get(key, "0")
        if not (re.fullmatch(r"[0-9]{1,10}", value) and int(value) <= _MOST_ID):
            raise DockerfileError(f"invalid value {value!r} of {key} in --mount={text}", hint="write a number")
        found[key] = int(value)
    if "size" in values:
        try:
            found["size"] = parse_size(values["size"])
        except ValueError:
            found["size"] = -1
        if not 0 <= found["size"] <= _MOST_BYTES:
            raise DockerfileError(
                f"invalid value {values['size']!r} of size in --mount={text}", hint="write bytes, such as 64m or 1g"
            )
    return found


def _plain(mount: RunMount, values: dict[str, str], text: str) -> RunMount:
    del values, text
    return mount


def _cache(mount: RunMount, values: dict[str, str], text: str) -> RunMount:
    sharing = values.get("sharing", mount.sharing).lower()
    if sharing not in SHARINGS:
        raise DockerfileError(
            f"unsupported sharing {sharing!r} in --mount={text}",
            hint=did_you_mean(sharing, SHARINGS) or f"it is one of {', '.join(SHARINGS)}",
        )
    return mount._replace(sharing=sharing, id=_id(values.get("id") or posixpath.normpath(mount.target), text))


def _secret(mount: RunMount, values: dict[str, str], text: str) -> RunMount:
    if values.get("id") and mount.source:
        raise DockerfileError(
            f"id and source are both given in --mount={text}", hint="of a secret they are the same: give one of them"
        )
    name = values.get("id") or mount.source or posixpath.basename(mount.target)
    if not name:
        raise DockerfileError(f"the secret has neither id nor target in --mount={text}", hint="add id=NAME")
    env = values.get("env", "")
    if "env" in values and not _VARIABLE.fullmatch(env):
        raise DockerfileError(
            f"invalid value {env!r} of env in --mount={text}",
            hint="the name of a variable has letters, digits and '_', and no digit first",
        )
    target = mount.target or ("" if env else f"/run/secrets/{posixpath.basename(name)}")
    return mount._replace(id=_id(name, text), source="", env=env, target=target, required=_required(values, text))


def _ssh(mount: RunMount, values: dict[str, str], text: str) -> RunMount:
    return mount._replace(id=_id(values.get("id") or "default", text), required=_required(values, text))


def _required(values: dict[str, str], text: str) -> bool:
    return _truth("required", values.get("required", "false"), text)


def _id(text: str, mount: str) -> str:
    if not _ID.fullmatch(text):
        raise DockerfileError(f"invalid value {text[:80]!r} of id in --mount={mount[:200]}", hint="write one line")
    return text


_OTHERS: dict[str, Callable[[RunMount, dict[str, str], str], RunMount]] = {
    BIND: _plain,
    CACHE: _cache,
    TMPFS: _plain,
    SECRET: _secret,
    SSH: _ssh,
}
