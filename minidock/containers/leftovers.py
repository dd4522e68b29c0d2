"""What a container has outside of its own directory, and how it is found and removed, by its monitor or by anyone.

Everything here is found again without knowing what its maker knew: cgroups by the container's ID in their names, the
process by PID and start time, the lease by the file ``start.json`` in the run directory, which exists from before the
first of them is made until after the last of them is gone. Each removal may be repeated and may find nothing.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Any

from minidock.errors import CorruptObjectError
from minidock.kernel import cgroups, namespaces, process
from minidock.store import files

if TYPE_CHECKING:
    from minidock.model.container import State
    from minidock.store.layout import DataRoot

WRITABLE = ("upper", "work", "tree")

_START = "start.json"
_LEASES = "/run/minidock/net"
_KILL = 9
_PF_EXITING = 4
_DEATH_SECONDS = 10.0


def cgroup_of(container_id: str) -> cgroups.Cgroup:
    """The cgroup that the container's start made, empty-handed where there is none."""
    paths: dict[str, str] = {}
    layout = cgroups.detect()
    mounts = dict(layout.controllers)
    if layout.unified:
        mounts[cgroups.UNIFIED] = layout.unified
    for controller, mount in mounts.items():
        parent = f"{mount}/{cgroups.PARENT}"
        try:
            names = os.listdir(parent)
        except OSError:
            continue
        for name in names:
            if name.startswith(f"{container_id}-"):
                paths[controller] = f"{parent}/{name}"
    return cgroups.open(paths)


def write_start(root: DataRoot, container_id: str, *, lease: str | None) -> None:
    """Record that a start is under way, and its lease: "" for none, None while that is not known. Raises StoreError."""
    directory = root.container_run_dir(container_id)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(directory, 0o700)
    files.write_json(f"{directory}/{_START}", {"lease": lease}, sync=False)


def started(root: DataRoot) -> frozenset[str]:
    """The names of all run directories: a container's is there from before a start has made anything until all of it
    is gone. Raises OSError.
    """
    try:
        return frozenset(os.listdir(root.run))
    except FileNotFoundError:
        return frozenset()


def release_lease(root: DataRoot, container_id: str) -> None:
    """Free the address, unless another container has it by now."""
    recorded = _read_start(root, container_id)
    if not recorded:
        return
    lease = recorded.get("lease")
    # A start that was killed between taking its lease and recording it is found by its name in the lease.
    for path in _all_leases() if lease is None else [str(lease)] if lease else []:
        try:
            owner = files.read_file(path, limit=65536)
        except (OSError, CorruptObjectError):
            continue
        if container_id.encode() in owner:
            files.unlink_if_there(path)


def remove_run_dir(root: DataRoot, container_id: str) -> None:
    """The last thing to go: from here on nothing of the start is left."""
    files.remove_tree(root.container_run_dir(container_id))


def kill_processes(state: State, container_id: str) -> None:
    """Kill what is left of a container whose monitor is dead, wait until it is, and remove its cgroup. Raises OSError.

    The kernel kills a monitor's pid namespace after the monitor's files, and so its lock, are closed.
    """
    cgroup = cgroup_of(container_id)
    if cgroup.paths:
        # First, since a frozen process of cgroup v1 dies only once it has been let go on.
        cgroup.kill()
    if state.pid:
        _kill_process(state.pid, state.start_time)
    cgroup.remove()


def remove_cgroup(container_id: str) -> None:
    """Kill whatever is in the container's cgroup and remove it. Raises OSError when something survives."""
    cgroup = cgroup_of(container_id)
    if cgroup.paths:
        if cgroup.processes():
            cgroup.kill()
        cgroup.remove()


def is_dying(pid: int) -> bool:
    """True when the process has gone or is on its way out (PF_EXITING in field 9 of /proc/PID/stat, proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return bool(int(text[text.rindex(b")") + 2 :].split()[6]) & _PF_EXITING)


def remove_writable(directory: str) -> None:
    """Remove the writable layer from a container's directory."""
    for name in WRITABLE:
        files.remove_tree(f"{directory}/{name}")


def has_writable(directory: str) -> bool:
    return any(os.path.lexists(f"{directory}/{name}") for name in WRITABLE)


def _all_leases() -> list[str]:
    try:
        bridges = [entry.path for entry in os.scandir(_LEASES) if entry.is_dir()]
    except FileNotFoundError:
        return []
    return [f"{bridge}/{name}" for bridge in bridges for name in os.listdir(bridge)]


def _kill_process(pid: int, start_time: int) -> None:
    try:
        pidfd = namespaces.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if process.start_time(pid) != start_time:
            return
        process.pidfd_send_signal(pidfd, _KILL)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        deadline = time.monotonic() + _DEATH_SECONDS
        while not poller.poll(100) and time.monotonic() < deadline:
            continue
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def _read_start(root: DataRoot, container_id: str) -> dict[str, Any]:
    try:
        return files.read_json(f"{root.container_run_dir(container_id)}/{_START}")
    except (OSError, CorruptObjectError):
        return {}
