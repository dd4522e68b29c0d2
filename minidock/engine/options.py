"""The options of ``create``, ``run``, ``explain`` and ``build``, for type checkers.

``settings`` and ``run_settings`` give them their meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


class RunOptions(TypedDict, total=False):
    """What RUN's commands of a build get, each as the flag takes it: ``--add-host``, ``-v``, ``--allow``, ``--secret``,
    ``--ssh``; ``shm_size`` is bytes."""

    add_hosts: Sequence[str]
    volumes: Sequence[str]
    allow: Sequence[str]
    secrets: Sequence[str]
    ssh: Sequence[str]
    shm_size: int


class OutputOptions(TypedDict, total=False):
    """What a build leaves behind: ``outputs`` and ``annotations`` as the flags take them, ``stdout`` the descriptor
    that the output ``-`` goes to, ``iidfile`` and ``metadata_file`` paths; ``squash`` makes one layer of the build's
    own."""

    outputs: Sequence[str]
    annotations: Sequence[str]
    stdout: int | None
    iidfile: str
    metadata_file: str
    squash: bool


class BuildOptions(RunOptions, OutputOptions, total=False):
    """And what a build reads: ``contexts`` as ``--build-context`` takes them, ``ignorefile`` a path; ``jobs`` is how
    many stages may run at once, 0 for as many as there are processors."""

    contexts: Sequence[str]
    ignorefile: str
    jobs: int


def check_build_options(options: Iterable[str]) -> None:
    """Raise TypeError for an option of ``build`` that there is not, as a function of that name would."""
    for name in options:
        if name not in BuildOptions.__optional_keys__:
            raise TypeError(f"build() got an unexpected keyword argument {name!r}")
