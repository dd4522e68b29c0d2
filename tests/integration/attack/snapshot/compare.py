"""minidock's snapshot beside docker's: what differs, and whether it is listed with its reason."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import NamedTuple

from tests.integration.attack.snapshot.facts import (
    ABSENT,
    CGROUPS,
    REFUSED,
    UNKNOWN,
    Facts,
    Recording,
    differing,
    expand,
)

KERNEL = "kernel"
"""As a listed value: what the kernel answers without a filter."""

# What moby 20.10 and runc 1.1 hide and write-protect where the kernel has it (moby, oci/defaults.go), each with one
# whose entry shows how. On another kernel than the recording's others of them are there.
_LIKE = {
    "/proc/acpi": ("/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware"),
    "/proc/keys": (
        *("/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats"),
        "/proc/sched_debug",
    ),
    "/proc/sys": ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
}
_UNIFIED = "cgroup2 / ro,nosuid,nodev,noexec; rw; private"


class Difference(NamedTuple):
    """What is known to differ: its keys, both values, and why. ``where`` restricts it to some hosts; an ``optional``
    one depends on what the kernel is built with."""

    keys: tuple[str, ...]
    minidock: str
    docker: str
    reason: str
    where: str = ""
    optional: bool = False


def load(path: Path) -> list[Difference]:
    """The listed differences."""
    found = []
    for entry in tomllib.loads(path.read_text())["difference"]:
        keys = tuple(key for pattern in entry.pop("keys") for key in expand(pattern))
        found.append(Difference(keys=keys, **entry))
    return found


class Comparison(NamedTuple):
    """``unlisted`` are differences without a reason, ``gone`` listed ones that are none any more."""

    unlisted: list[str]
    gone: list[str]


def as_of_this_kernel(recording: Recording, *, unified: bool) -> Recording:
    """What docker's snapshot would be on the running kernel, as far as files of /proc and cgroups go."""
    facts = dict(recording.facts)
    for model, paths in _LIKE.items():
        shown = facts[f"mount {model}"]
        for path in paths:
            if os.path.lexists(path):
                facts[f"mount {path}"] = shown.replace(model.removeprefix("/proc"), path.removeprefix("/proc"))
            else:
                facts.pop(f"mount {path}", None)
    if os.path.lexists("/proc/kcore"):
        facts["dev /dev/core"] = "-> /proc/kcore"
    if unified:
        facts.pop(CGROUPS, None)
        facts["mount /sys/fs/cgroup"] = _UNIFIED
    return recording._replace(facts=facts)


def explained(key: str, docker: Recording, unconfined: Facts, mine: str) -> bool:
    """Whether the kernel alone may make this call's outcome another than the recorded one: it answers otherwise without
    a filter, too. That never explains that a call which docker refuses is let through to a kernel that has it."""
    now = unconfined[key]
    if now == docker.unconfined[key]:
        return False
    return now == UNKNOWN or docker.facts[key] not in REFUSED or mine in REFUSED


def compare(
    mine: Facts,
    docker: Recording,
    unconfined: Facts,
    listed: list[Difference],
    *,
    conditions: frozenset[str],
) -> Comparison:
    """Compare minidock's snapshot with docker's.

    ``unconfined`` is what the running kernel answers without a filter; ``conditions`` are what an entry's ``where`` may
    ask for, "cgroup v1" or "cgroup v2", and "recorded kernel", where all that is listed has to differ.
    """
    here = [entry for entry in listed if not entry.where or entry.where in conditions]
    known = {key: entry for entry in here for key in entry.keys}

    def matches(told: str, key: str, value: str) -> bool:
        if key not in unconfined:
            return told == value
        # What another kernel answers is not what is listed.
        return unconfined[key] != docker.unconfined[key] or value == (unconfined[key] if told == KERNEL else told)

    unlisted = []
    differences = differing(mine, docker.facts)
    for key in differences:
        one, other = mine.get(key, ABSENT), docker.facts.get(key, ABSENT)
        entry = known.get(key)
        if entry and matches(entry.minidock, key, one) and matches(entry.docker, key, other):
            continue
        if key not in unconfined or not explained(key, docker, unconfined, one):
            unlisted.append(f"{key}: minidock {one}, docker {other}")
    firm = {key for key, entry in known.items() if not entry.optional}
    stale = firm - set(differences) if "recorded kernel" in conditions else ()
    return Comparison(unlisted, sorted(f"{key}: {known[key].reason}" for key in stale))
