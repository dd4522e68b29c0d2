"""The flags of ``build`` about RUN's commands as the builder takes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from minidock.build.request import RunSettings
from minidock.build.secrets import check_secret
from minidock.engine.options import RunOptions
from minidock.engine.settings import check_texts
from minidock.errors import MountSpecError, UsageError
from minidock.model.build_flags import (
    NETWORK_HOST,
    AgentSource,
    parse_agent,
    parse_entitlements,
    parse_host,
    parse_secret,
    unique,
)
from minidock.model.mounts import Mount, parse_volume_flag
from minidock.model.spec import check_target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NETWORKS = ("bridge", "none", "host")
_MOST_BYTES = 2**63 - 1


def run_settings(options: Mapping[str, Any], *, network: str) -> RunSettings:
    """What ``options``, those of ``RunOptions``, ask for. Raises TypeError for any other, UsageError and MountSpecError
    for what makes no sense, MinidockError for a secret or agent that is not there."""
    for name in options:
        if name not in RunOptions.__optional_keys__:
            raise TypeError(f"build() got an unexpected keyword argument {name!r}")
    if network not in NETWORKS:
        raise UsageError(f"network {network!r} is not there yet", hint=f"the networks are {', '.join(NETWORKS)}")
    for texts in (options.get(name, ()) for name in ("add_hosts", "volumes", "allow", "secrets", "ssh")):
        check_texts(*texts)
    secrets = tuple(map(parse_secret, options.get("secrets", ())))
    unique(secrets, flag="--secret")
    for secret in secrets:
        check_secret(secret)
    agents = tuple(map(parse_agent, options.get("ssh", ())))
    unique(agents, flag="--ssh")
    shm_size = options.get("shm_size", 0)
    if not 0 <= shm_size <= _MOST_BYTES:
        raise UsageError(f"invalid size {shm_size} of /dev/shm", hint="it is bytes, 0 for the usual")
    allowed = parse_entitlements(options.get("allow", ()))
    return RunSettings(
        hosts=tuple(map(parse_host, options.get("add_hosts", ()))),
        shm_size=shm_size,
        volumes=_volumes(options.get("volumes", ())),
        # Whoever asks for the host's network for all RUNs has allowed it.
        allowed=(*allowed, NETWORK_HOST) if network == "host" else allowed,
        secrets=secrets,
        agents=tuple(map(_there, agents)),
    )


def _volumes(texts: Sequence[str]) -> tuple[Mount, ...]:
    found = []
    for text in texts:
        mount = parse_volume_flag(text, cwd=os.getcwd())
        if mount.type != "bind":
            raise MountSpecError(
                f"cannot mount {text!r} in a build: it is no directory of the host",
                hint="use an absolute path or one that starts with './', or RUN --mount=type=cache",
            )
        if not os.path.exists(mount.source):
            raise MountSpecError(f"bind source path does not exist: {mount.source}", hint=f"in '-v {text}'")
        check_target(mount.target)
        found.append(mount)
    return tuple(found)


def _there(agent: AgentSource) -> AgentSource:
    """The agent with what answers for it, which is there."""
    paths = agent.paths or (os.environ.get("SSH_AUTH_SOCK", ""),)
    if not paths[0]:
        raise UsageError(
            f"there is no SSH agent for --ssh {agent.id}: SSH_AUTH_SOCK is not set",
            hint=f"start an agent, or name its socket or a private key: --ssh {agent.id}=PATH",
        )
    for path in paths:
        if not os.path.exists(path):
            raise UsageError(f"the SSH agent {agent.id!r} cannot be used: there is no {path!r}")
    return agent._replace(paths=tuple(map(os.path.abspath, paths)))
