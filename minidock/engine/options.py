"""The options of ``create``, ``run``, ``explain`` and ``build``, for type checkers.

``settings`` and ``run_settings`` give them their meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict

from minidock.errors import BuildError
from minidock.model.mounts import Mount


class CreateOptions(TypedDict, total=False):
    """Every option may be left out; then the image or docker's default decides.

    ``env`` and ``labels`` are mappings, or ``NAME=VALUE`` texts. ``volumes`` are texts as ``-v`` takes them, ``mounts``
    as ``--mount`` takes them or ``Mount`` values, ``tmpfs`` as ``--tmpfs``,
    ``volumes_from`` as ``--volumes-from``; so are ``ulimits``, ``devices``, ``device_cgroup_rules`` and ``group_add``;
    ``sysctls`` are a mapping or ``NAME=VALUE`` texts. ``platform`` is what the image has to be for. Sizes are bytes,
    times seconds. ``pull`` is "always", "missing" or "never".
    """

    name: str
    platform: str
    pull: str
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
    own; ``attestations`` are as ``--attest`` takes them."""

    outputs: Sequence[str]
    annotations: Sequence[str]
    stdout: int | None
    iidfile: str
    metadata_file: str
    squash: bool
    attestations: Sequence[str]


class CacheOptions(TypedDict, total=False):
    """Where steps of a build may be taken from and where they go, as ``--cache-from`` and ``--cache-to`` take it, and
    the stages whose steps all run, as ``--no-cache-filter`` does."""

    cache_from: Sequence[str]
    cache_to: Sequence[str]
    no_cache_filter: Sequence[str]


class BuildOptions(RunOptions, OutputOptions, CacheOptions, total=False):
    """And what a build reads: ``contexts`` as ``--build-context`` takes them, ``ignorefile`` a path; ``platform`` is
    what the image is for, this machine if empty; with ``pull`` its bases are asked for anew; ``unsetenv`` and
    ``unsetlabel`` are names that it is not to have of its base. ``jobs`` is how many stages may run at once, 0 for as
    many as there are processors. ``verify`` builds twice and raises NotReproducibleError where the
    results differ. With ``explain`` the progress says of each step that the cache has not what made it so.

    ``on_error`` is what becomes of a step that fails: "keep" (if nothing is said) keeps what it has left under the name
    that ``BuildError.kept`` has, "discard" does not, "shell" also opens a shell there, on the terminal that descriptors
    0 and 2 are, once ``before_shell`` was called with the error."""

    contexts: Sequence[str]
    ignorefile: str
    platform: str
    pull: bool
    explain: bool
    unsetenv: Sequence[str]
    unsetlabel: Sequence[str]
    jobs: int
    verify: bool
    on_error: str
    before_shell: Callable[[BuildError], None] | None


def check_build_options(options: Iterable[str]) -> None:
    """Raise TypeError for an option of ``build`` that there is not, as a function of that name would."""
    for name in options:
        if name not in BuildOptions.__optional_keys__:
            raise TypeError(f"build() got an unexpected keyword argument {name!r}")
