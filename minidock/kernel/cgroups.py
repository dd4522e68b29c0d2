"""Control groups of both versions: find them, make one for each start, fill it, stop it, remove it.

cgroups(7); Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst. A host may have version 1 hierarchies (one mount for
each controller or group of them), version 2 (one mount), or the former with an empty version 2 hierarchy beside them,
which still gives ``cgroup.kill`` (5.14) and ``cgroup.freeze`` (5.2). Groups are made under ``minidock`` in each.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from minidock.kernel import bpf
from minidock.kernel.cgroup_files import read, remove, wait, write

UNIFIED = "unified"
PARENT = "minidock"
# Controllers that minidock sets or reads; others (net_cls, perf_event, rdma, ...) stay as they are.
CONTROLLERS = ("devices", "pids", "memory", "cpu", "cpuacct", "cpuset", "blkio", "freezer")
_V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_REMOVE_SECONDS = 5.0


class DeviceRule(NamedTuple):
    """Allow or deny: ``type`` is a, b or c; None for ``major`` or ``minor`` means any; ``access`` is of r, w and m."""

    allow: bool
    type: str
    major: int | None
    minor: int | None
    access: str

    def texts(self) -> tuple[str, ...]:
        """As version 1's devices.allow and devices.deny read it, where a bare ``a`` stands for everything at once."""
        if self.type == "a" and self.major is None and self.minor is None and set(self.access) == set("rwm"):
            return ("a",)
        major = "*" if self.major is None else self.major
        minor = "*" if self.minor is None else self.minor
        kinds = "bc" if self.type == "a" else self.type
        return tuple(f"{kind} {major}:{minor} {self.access}" for kind in kinds)


class Layout(NamedTuple):
    """Where cgroups are mounted writable: ``controllers`` of version 1 by name, ``unified`` is "" without version 2."""

    controllers: dict[str, str]
    unified: str

    @property
    def version(self) -> int:
        """1 (also with a version 2 hierarchy beside it), 2, or 0 when nothing is mounted."""
        return 1 if self.controllers else 2 if self.unified else 0


def detect(mountinfo: str | None = None) -> Layout:
    """Read where cgroups are mounted from /proc/self/mountinfo (proc(5)), or from its text if that is given."""
    if mountinfo is None:
        mountinfo = read("/proc/self/mountinfo")
    controllers: dict[str, str] = {}
    unified = ""
    for line in mountinfo.splitlines():
        if " - cgroup" not in line:
            continue
        before, _, after = line.partition(" - ")
        fields, super_fields = before.split(" "), after.split(" ")
        if "ro" in fields[5].split(","):
            continue
        path = _unescape(fields[4])
        if super_fields[0] == "cgroup2":
            unified = unified or path
        elif super_fields[0] == "cgroup":
            for option in super_fields[2].split(","):
                if option in CONTROLLERS:
                    controllers.setdefault(option, path)
    return Layout(controllers, unified)


def create(name: str, *, layout: Layout | None = None) -> Cgroup:
    """Make a new group in every hierarchy; its name is ``name`` and a nonce, so that it was never killed before.

    (The kernel kills whatever is cloned into a group that ``cgroup.kill`` was ever written to.) Without any hierarchy
    the result is a ``NoCgroups``. Raises OSError; nothing is left then.
    """
    layout = detect() if layout is None else layout
    if not layout.version:
        return NoCgroups()
    unique = f"{name}-{os.urandom(4).hex()}"
    group = Cgroup({})
    try:
        for controller, mount in layout.controllers.items():
            # With version 2 beside it, its freezer serves: a frozen process can be killed there.
            if controller != "freezer" or not layout.unified:
                group.paths[controller] = _make(mount, unique)
                if controller == "cpuset":
                    _fill_cpuset(mount, f"{mount}/{PARENT}")
                    _fill_cpuset(f"{mount}/{PARENT}", group.paths[controller])
        if layout.unified:
            group.paths[UNIFIED] = _make(layout.unified, unique, prepare_parent=_enable_controllers)
    except BaseException:
        group.remove()
        raise
    return group


def available(layout: Layout) -> frozenset[str]:
    """The controllers that a group can use, by the names of version 2 where both have one ("io" for blkio)."""
    names = {"io" if name == "blkio" else name for name in layout.controllers}
    if layout.unified:
        names.update(read(f"{layout.unified}/cgroup.controllers").split())
    return frozenset(names)


def open(paths: Mapping[str, str]) -> Cgroup:  # noqa: A001
    """The group whose ``paths`` were recorded earlier; it may be gone."""
    return Cgroup(dict(paths)) if paths else NoCgroups()


def remove_parent(*, layout: Layout | None = None) -> None:
    """Remove the ``minidock`` group that all others were in; groups that still hold something stay."""
    layout = detect() if layout is None else layout
    for mount in {*layout.controllers.values(), layout.unified} - {""}:
        try:
            os.rmdir(f"{mount}/{PARENT}")
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY}:
                raise


class Cgroup:
    """One group in each hierarchy. ``paths`` (controller or "unified" to directory) is all there is to record."""

    __slots__ = ("paths",)

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = paths

    @property
    def directories(self) -> tuple[str, ...]:
        """The distinct directories, the unified one first: what is killed through it is not spread meanwhile."""
        ordered = dict.fromkeys([self.paths.get(UNIFIED, ""), *self.paths.values()])
        return tuple(path for path in ordered if path)

    @property
    def _unified(self) -> str:
        return self.paths.get(UNIFIED, "")

    def attach(self, pid: int) -> None:
        """Move process ``pid`` into the group. The first move after a pause waits some 10 ms for a grace period."""
        for path in self.directories:
            write(f"{path}/cgroup.procs", str(pid))

    def attach_self(self, *, born: bool = False) -> None:
        """Move the calling process, which must have one thread, into the group; ``born``: it is in version 2's already.

        On version 1 this takes 0.3 ms where ``attach`` takes 10: a thread that moves itself needs no grace period
        (Linux 5.5, cgroup_procs_write_start). On version 2 nothing is as fast as to be born there: ``open_unified``.
        """
        for path in self.directories:
            if path != self._unified:
                write(f"{path}/tasks", "0")
            elif not born:
                write(f"{path}/cgroup.procs", "0")

    def set_devices(self, rules: Iterable[DeviceRule]) -> None:
        """Deny every device, then apply ``rules`` in order, later ones winning.

        Version 1 through devices.deny and devices.allow, version 2 through a BPF program. Raises OSError: a group whose
        devices cannot be limited must not be used.
        """
        rules = tuple(rules)
        if "devices" in self.paths:
            path = self.paths["devices"]
            write(f"{path}/devices.deny", "a")
            for rule in rules:
                for text in rule.texts():
                    write(f"{path}/devices.{'allow' if rule.allow else 'deny'}", text)
        elif self._unified:
            bpf.limit_devices(self._unified, rules)
        else:
            raise OSError(errno.ENODEV, "no mounted cgroup hierarchy can limit devices")

    def set_pids_max(self, limit: int) -> bool:
        """At most ``limit`` tasks, or any number if it is negative. False if the host has no pids controller."""
        path = self.paths.get("pids") or self._unified
        if not path or not os.path.exists(f"{path}/pids.max"):
            return False
        write(f"{path}/pids.max", "max" if limit < 0 else str(limit))
        return True

    def processes(self) -> list[int]:
        """The PIDs in the group and in those below it, as the reader's PID namespace sees them (0: not at all)."""
        found: set[int] = set()
        for path in self.directories[:1]:
            for directory, _, _ in os.walk(path):
                try:
                    found.update(int(pid) for pid in read(f"{directory}/cgroup.procs").split())
                except OSError as error:
                    # Removed meanwhile, or a group of threads, whose processes the group above lists.
                    if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
                        raise
        return sorted(found)

    def freeze(self) -> None:
        """Stop every process in the group and wait until all are. Raises OSError (ETIMEDOUT after 10 s)."""
        self._set_frozen(True)

    def thaw(self) -> None:
        """Let the processes go on."""
        self._set_frozen(False)

    @property
    def frozen(self) -> bool:
        """Whether the group is frozen, wholly or in the making; False when it is gone."""
        try:
            if self._v2_freezer:
                return read(f"{self._unified}/cgroup.freeze").strip() == "1"
            if "freezer" in self.paths:
                return read(f"{self.paths['freezer']}/freezer.state").strip() != "THAWED"
        except FileNotFoundError:
            pass
        return False

    def kill(self) -> None:
        """SIGKILL to every process in the group and below: one write, or freeze, signal and thaw until none is left."""
        if self._unified:
            try:
                write(f"{self._unified}/cgroup.kill", "1")
                return
            except FileNotFoundError:
                if not os.path.exists(self._unified):
                    return
        self._kill_one_by_one()

    def remove(self) -> None:
        """Remove the group and those below it; what is busy is tried again for 5 s. One that is gone is no error."""
        deadline = time.monotonic() + _REMOVE_SECONDS
        for path in self.directories:
            remove(path, deadline)

    def open_unified(self) -> int:
        """A descriptor of the version 2 directory for clone3's CLONE_INTO_CGROUP. Raises OSError (ENOENT: none)."""
        return os.open(self._unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def _v2_freezer(self) -> bool:
        return bool(self._unified) and os.path.exists(f"{self._unified}/cgroup.freeze")

    def _set_frozen(self, wanted: bool) -> None:
        if self._v2_freezer:
            write(f"{self._unified}/cgroup.freeze", "1" if wanted else "0")
            target = f"frozen {int(wanted)}"
            wait(lambda: target in read(f"{self._unified}/cgroup.events"), self._unified)
        elif "freezer" in self.paths:
            path, state = f"{self.paths['freezer']}/freezer.state", "FROZEN" if wanted else "THAWED"

            def reached() -> bool:
                # A group that forks meanwhile may need to be told again.
                write(path, state)
                return read(path).strip() == state

            wait(reached, path)
        else:
            raise OSError(errno.ENODEV, "no mounted cgroup hierarchy can freeze processes")

    def _kill_one_by_one(self) -> None:
        deadline = time.monotonic() + _REMOVE_SECONDS
        while pids := self.processes():
            if self._v2_freezer:
                write(f"{self._unified}/cgroup.freeze", "1")
            elif "freezer" in self.paths:
                write(f"{self.paths['freezer']}/freezer.state", "FROZEN")
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if "freezer" in self.paths:
                # Version 1 delivers the signal only to a thawed process.
                write(f"{self.paths['freezer']}/freezer.state", "THAWED")
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, f"{len(pids)} processes survive SIGKILL", self.directories[0])
            time.sleep(0.005)


class NoCgroups(Cgroup):
    """The group of a host that has mounted no hierarchy: nothing can be limited, so ``set_devices`` raises OSError."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__({})

    def kill(self) -> None:
        """Nothing is known to kill."""


def _make(mount: str, name: str, *, prepare_parent: Callable[[str, str], None] | None = None) -> str:
    """Make ``mount``/minidock/``name``, the parent too when it is missing; return its path."""
    parent, path = f"{mount}/{PARENT}", f"{mount}/{PARENT}/{name}"
    try:
        os.mkdir(path, 0o755)
    except FileNotFoundError:
        os.makedirs(parent, 0o755, exist_ok=True)
        if prepare_parent:
            prepare_parent(mount, parent)
        os.mkdir(path, 0o755)
    except FileExistsError:
        # Controllers that are joined in one mount share their directory; the nonce excludes any other reason.
        return path
    return path


def _fill_cpuset(parent: str, path: str) -> None:
    """A version 1 cpuset takes no process before it has CPUs and memory nodes: the parent's."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not read(f"{path}/{file}").strip():
            write(f"{path}/{file}", read(f"{parent}/{file}").strip())


def _enable_controllers(mount: str, parent: str) -> None:
    """Give the parent's children the controllers that this hierarchy has; what is refused is simply not there."""
    for path in (mount, parent):
        try:
            available = read(f"{path}/cgroup.controllers").split()
        except FileNotFoundError:
            return
        for controller in _V2_CONTROLLERS:
            if controller in available:
                try:
                    write(f"{path}/cgroup.subtree_control", f"+{controller}")
                except OSError:
                    continue


def _unescape(path: str) -> str:
    """mountinfo writes blank, tab, newline and backslash as three octal digits."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path
