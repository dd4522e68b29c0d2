"""Values of ``build``'s flags about RUN: ``--secret``, ``--ssh``, ``--add-host``, ``--allow``; the grammar, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from minidock.errors import MountSpecError, UsageError
from minidock.model.mounts import csv_record

NETWORK_HOST, INSECURE = ENTITLEMENTS = ("network.host", "security.insecure")
DEVICE = "device"
HOST_GATEWAY = "host-gateway"
_NAME = re.compile(r"[^\0\s,=]{1,255}")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_SECRET_HINT = "the form is id=NAME[,src=FILE] or id=NAME,env=VARIABLE"


class SecretSource(NamedTuple):
    """Where the secret ``id`` comes from: the file ``path``, or the variable ``env``; neither where nothing was said:
    then it is the variable of that name, if there is one, else the file of that name."""

    id: str
    path: str = ""
    env: str = ""


class AgentSource(NamedTuple):
    """What answers as the SSH agent ``id``: a socket, or an agent with the private keys of ``paths``; none of them
    means the agent of SSH_AUTH_SOCK."""

    id: str
    paths: tuple[str, ...] = ()


def parse_secret(text: str) -> SecretSource:
    """Read ``--secret``. Raises UsageError, naming the text: it holds no secret, only where one is."""
    values: dict[str, str] = {}
    try:
        fields = csv_record(text)
    except MountSpecError as error:
        raise UsageError(f"invalid secret {text!r}", hint=error.hint or _SECRET_HINT) from None
    for field in fields:
        key, equals, value = field.partition("=")
        key = {"source": "src"}.get(key.lower(), key.lower())
        if key not in ("id", "src", "env", "type"):
            raise UsageError(f"invalid secret {text!r}: unknown key {key!r}", hint=_SECRET_HINT)
        if not equals or not value or key in values:
            raise UsageError(f"invalid secret {text!r}: {key} needs one value", hint=_SECRET_HINT)
        values[key] = value
    kind = values.get("type", "")
    if not values.get("id"):
        raise UsageError(f"invalid secret {text!r}: it has no id", hint=_SECRET_HINT)
    if kind not in ("", "file", "env"):
        raise UsageError(f"invalid secret {text!r}: unknown type {kind!r}", hint="the types are file and env")
    if kind == "env" and "env" not in values:
        # As buildx has it: with this type, src names the variable.
        values["env"] = values.pop("src", values["id"])
    if "env" in values and ("src" in values or kind == "file"):
        raise UsageError(f"invalid secret {text!r}: it is a file or a variable, not both", hint=_SECRET_HINT)
    return SecretSource(values["id"], values.get("src", values["id"] if kind == "file" else ""), values.get("env", ""))


def parse_agent(text: str) -> AgentSource:
    """Read ``--ssh``: ``ID[=SOCKET|KEY[,KEY...]]``. Raises UsageError, naming the text."""
    name, equals, rest = text.partition("=")
    paths = tuple(rest.split(",")) if equals else ()
    if not _NAME.fullmatch(name) or not all(paths) or "\0" in rest:
        raise UsageError(f"invalid SSH agent {text!r}", hint="the form is default, or ID=SOCKET or ID=KEY[,KEY...]")
    return AgentSource(name, paths)


def parse_host(text: str) -> tuple[str, str]:
    """Read ``--add-host``: ``NAME:ADDRESS`` or ``NAME=ADDRESS`` as name and address. Raises UsageError."""
    import ipaddress

    name, equals, address = text.partition("=")
    if not equals:
        name, _, address = text.partition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if not _HOST.fullmatch(name):
        raise UsageError(f"invalid host {text!r}", hint="the form is NAME:ADDRESS, such as db:10.0.0.7")
    if address != HOST_GATEWAY:
        try:
            address = str(ipaddress.ip_address(address))
        except ValueError:
            raise UsageError(
                f"invalid host {text!r}: {address!r} is no address", hint=f"give an IP address or {HOST_GATEWAY}"
            ) from None
    return name, address


def parse_entitlements(texts: Iterable[str]) -> tuple[str, ...]:
    """Read ``--allow``, each with one or, parted by commas, several of them. Raises UsageError for an unknown one."""
    found = [name for text in texts for name in text.split(",")]
    for name in found:
        kind, equals, device = name.partition("=")
        if name not in ENTITLEMENTS and not (kind == DEVICE and bool(equals) == bool(device)):
            raise UsageError(
                f"unknown entitlement {name!r} of --allow",
                hint=f"it is {', '.join(ENTITLEMENTS)}, {DEVICE} or {DEVICE}=VENDOR/CLASS=NAME",
            )
    return tuple(sorted(set(found)))


def unique(sources: Iterable[SecretSource | AgentSource], *, flag: str) -> None:
    """Raise UsageError for an ID that stands twice."""
    seen: set[str] = set()
    for source in sources:
        if source.id in seen:
            raise UsageError(f"{flag} gives {source.id!r} twice", hint="give each ID once")
        seen.add(source.id)
