"""The options of ``create``, ``run`` and ``explain``, for type checkers; ``settings`` gives them their meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from minidock.model.mounts import Mount


class CreateOptions(TypedDict, total=False):
    """Every option may be left out; then the image or docker's default decides.

    ``env`` and ``labels`` are mappings, or ``NAME=VALUE`` texts. ``volumes`` are texts as ``-v`` takes them, ``mounts``
    as ``--mount`` takes them or ``Mount`` values, ``tmpfs`` as ``--tmpfs``,
    ``volumes_from`` as ``--volumes-from``; so are ``ulimits``, ``devices``, ``device_cgroup_rules`` and ``group_add``;
    ``sysctls`` are a mapping or ``NAME=VALUE`` texts. Sizes are bytes, times seconds.
    """

    name: str
    env: Mapping[str, str] | Sequence[str]
    workdir: str
    user: str
    entrypoint: Sequence[str] | None
    hostname: str
    labels: Mapping[str, str] | Sequence[str]
    volumes: Sequence[str]
    mounts: Sequence[str | Mount]
    tmpfs: Sequence[str]
    volumes_from: Sequence[str]
    read_only: bool
    keep: bool
    auto_remove: bool
    cap_add: Sequence[str]
    cap_drop: Sequence[str]
    privileged: bool
    security_opt: Sequence[str]
    network: str
    init: bool
    stop_signal: str
    stop_timeout: int
    shm_size: int
    tty: bool
    interactive: bool
    ulimits: Sequence[str]
    sysctls: Mapping[str, str] | Sequence[str]
    devices: Sequence[str]
    device_cgroup_rules: Sequence[str]
    group_add: Sequence[str]
