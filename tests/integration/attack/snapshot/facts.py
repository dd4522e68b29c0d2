"""A sandbox's snapshot: what ``src/snapshot.c`` prints, as facts that two sandboxes can be compared by.

A fact is a key, whose first word is its kind, and a value, both texts: "call x86_64:165" is "EPERM EPERM". What only
this host or this run decides (IDs, sizes, the host's file systems) is not in the value. The values of kind "call" and
"device" are outcomes as the program prints them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

Facts = dict[str, str]
Limits = Mapping[str, tuple[int, int]]

ABSENT = "absent"
UNKNOWN = "ENOSYS ENOSYS"
REFUSED = frozenset({"EPERM EPERM", UNKNOWN})
OTHER_DEVICES = "device all others"
CGROUPS = "mount /sys/fs/cgroup/*"

_STATUS = (
    *("Umask", "Uid", "Gid", "Groups", "TracerPid", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"),
    *("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"),
)
# Of these the options are the sandbox's own; any other file system is the host's.
_PSEUDO = frozenset({"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay"})
# What some kernels are built to say of every tmpfs.
_BUILT_IN = frozenset({"inode64"})
_ACCESS_TIMES = frozenset({"relatime", "noatime", "nodiratime", "strictatime"})
# The hard limit of descriptors that a container gets where the caller's is higher.
_MOST_FILES = 524288
_VOLATILE = frozenset({"volatile", "fsync=volatile"})


def read(text: str, limits: Limits) -> Facts:
    """The facts of what the program printed under a caller whose resource limits were ``limits``: (soft, hard)."""
    facts: Facts = {}
    devices: Facts = {}
    for line in text.splitlines():
        kind, *words = line.split("\t")
        if kind == "status" and words[0].rstrip(":") in _STATUS:
            facts[f"status {words[0].rstrip(':')}"] = " ".join(" ".join(words[1:]).split())
        elif kind == "mount":
            key, value = _mount(words[0])
            facts[key] = value if key not in facts else " | ".join(sorted({*facts[key].split(" | "), value}))
        elif kind == "limit":
            facts[f"limit {words[0]}"] = _limit(words[1], limits.get(words[0], (0, 0)))
        elif kind == "device":
            devices[f"device {words[0]}"] = words[1]
        elif kind in {"dev", "call"}:
            facts[f"{kind} {words[0]}"] = words[1]
    if devices:
        most = Counter(devices.values()).most_common(1)[0][0]
        facts |= {key: outcomes for key, outcomes in devices.items() if outcomes != most}
        facts[OTHER_DEVICES] = most
    return facts


def _mount(line: str) -> tuple[str, str]:
    """Of a line of mountinfo (proc_pid_mountinfo(5)): "TYPE ROOT OPTIONS; OPTIONS OF THE FILE SYSTEM; PROPAGATION"."""
    before, _, after = line.partition(" - ")
    _, _, _, root, target, options, *optional = before.split()
    kind, _, super_options = after.split()[:3]
    flags = [option for option in options.split(",") if option not in _ACCESS_TIMES]
    further = [option for option in super_options.split(",") if option not in _BUILT_IN]
    if kind not in _PSEUDO:
        kind, root, further = "host", "", []
    elif kind == "overlay":
        further = ["volatile"] if _VOLATILE & set(further) else []
    elif kind in {"cgroup", "cgroup2"}:
        root, further = root if root == "/" else "the group's path", further[:1]
    propagation = ",".join(sorted(word.partition(":")[0] for word in optional)) or "private"
    target = re.sub(r"/cpu\d+/", "/cpu*/", target)
    key = CGROUPS if target.startswith("/sys/fs/cgroup/") else f"mount {target}"
    return key, "; ".join((" ".join(filter(None, (kind, root, ",".join(flags)))), ",".join(further), propagation))


def _limit(text: str, caller: tuple[int, int]) -> str:
    soft, hard = (int(number) for number in text.split(":"))
    if (soft, hard) == caller:
        return "the caller's"
    return ":".join("hard" if number in (caller[1], _MOST_FILES) else str(number) for number in (soft, hard))


def calls(facts: Facts) -> Facts:
    """The facts about system calls alone."""
    return {key: value for key, value in facts.items() if key.startswith("call ")}


class Recording(NamedTuple):
    """Docker's snapshot as it was once taken, and what that kernel answered without a filter."""

    kernel: str
    docker: str
    unconfined: Facts
    facts: Facts

    @classmethod
    def load(cls, path: Path) -> Recording:
        stored = json.loads(path.read_text())
        unconfined = dict(_spread(stored["unconfined"]))
        return cls(stored["kernel"], stored["docker"], unconfined, stored["facts"] | dict(_spread(stored["calls"])))

    def store(self, path: Path) -> None:
        """Write it so that a person can read it: numbers of calls by their outcomes."""
        others = {key: value for key, value in sorted(self.facts.items()) if not key.startswith("call ")}
        stored = {"kernel": self.kernel, "docker": self.docker, "facts": others}
        stored |= {"calls": _gathered(self.facts), "unconfined": _gathered(self.unconfined)}
        path.write_text(json.dumps(stored, indent=1) + "\n")


def _gathered(facts: Facts) -> dict[str, dict[str, str]]:
    """{ABI: {outcomes: "0-3 7"}} of the facts about system calls."""
    found: dict[str, dict[str, list[list[int]]]] = {}
    for key, outcomes in calls(facts).items():
        abi, _, number = key.removeprefix("call ").partition(":")
        ranges = found.setdefault(abi, {}).setdefault(outcomes, [])
        if ranges and ranges[-1][1] == int(number) - 1:
            ranges[-1][1] += 1
        else:
            ranges.append([int(number), int(number)])
    return {
        abi: {outcomes: " ".join(_range(*pair) for pair in by_outcome[outcomes]) for outcomes in sorted(by_outcome)}
        for abi, by_outcome in found.items()
    }


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _spread(gathered: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    for abi, by_outcome in gathered.items():
        for outcomes, ranges in by_outcome.items():
            for number in numbers(ranges):
                yield f"call {abi}:{number}", outcomes


def numbers(ranges: str) -> Iterator[int]:
    """The numbers of "0-3 7"."""
    for text in ranges.split():
        first, _, last = text.partition("-")
        yield from range(int(first), int(last or first) + 1)


def expand(pattern: str) -> Iterator[str]:
    """The keys of "call x86_64,i386:425-427 450"; any other pattern is a key itself."""
    match = re.fullmatch(r"call ([\w,]+):([\d\- ]+)", pattern)
    if match is None:
        yield pattern
        return
    for abi in match[1].split(","):
        yield from (f"call {abi}:{number}" for number in numbers(match[2]))


def differing(one: Facts, other: Facts) -> list[str]:
    """The keys whose values differ or that only one has, in order."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key, ABSENT) != other.get(key, ABSENT))
