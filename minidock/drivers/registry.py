"""The storage drivers by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.drivers import trees
from minidock.errors import DriverError
from minidock.kernel.files import fs_magic, fs_name, lock_exclusive

if TYPE_CHECKING:
    from minidock.drivers.interface import Driver
    from minidock.drivers.overlay2 import Overlay2
    from minidock.drivers.tarballs import Tars
    from minidock.drivers.vfs import Vfs

NAMES = ("overlay2", "vfs")
DEFAULT = "overlay2"

# docker's and podman's other drivers: the file system that each needs beneath, and why it is not here.
# How often a driver is tried out anew when the folder for that has gone.
_TRIES = 5
_OF_A_FILE_SYSTEM = {"btrfs": "btrfs", "zfs": "zfs"}
_ABSENT = {
    "devicemapper": "it needs a device-mapper thin pool, and docker itself removed it in release 25",
    "aufs": "it needs the kernel module aufs, which no mainline kernel has",
    "overlay": "it was the forerunner of overlay2, and docker removed it in release 24",
    "fuse-overlayfs": "it serves hosts without root, and minidock runs as root",
    "native": "it is a driver of containerd, the same as vfs",
    "windowsfilter": "it needs Windows",
}


def open_driver(name: str, directory: str, scratch: str, *, tars: Tars | None = None) -> Driver:
    """The storage driver ``name`` (of NAMES; "" is the default), its layers in ``directory/name``.

    ``tars`` says where tarballs lie that overlay2 may mount; without it every layer is unpacked. The first time, the
    driver is tried out in ``scratch``, a directory on the same file system. Raises DriverError: one sentence that says
    what is missing, with the drivers that work here as hint.
    """
    wanted = name or DEFAULT
    if wanted not in NAMES:
        raise _unusable(wanted, _why_absent(wanted, directory), scratch)
    driver = _new(wanted, directory, scratch, tars)
    if not driver.is_initialised():
        problem = _try(wanted, scratch)
        if problem:
            raise _unusable(wanted, problem, scratch)
        try:
            driver.initialise()
        except OSError as error:
            raise DriverError(f"cannot make {error.filename} for the storage driver: {error.strerror}") from error
    return driver


def is_tried(name: str, directory: str, scratch: str, *, tars: Tars) -> bool:
    """Whether ``open_driver`` would only look, and neither try nor make anything."""
    from minidock.drivers.forms import is_known

    wanted = name or DEFAULT
    if wanted not in NAMES:
        return True
    if wanted == DEFAULT and not is_known(tars, scratch):
        return False
    return _new(wanted, directory, scratch, tars).is_initialised()


def working(scratch: str) -> list[str]:
    """The names of the drivers that this host can run, tried out in ``scratch``."""
    return [name for name in NAMES if not _try(name, scratch)]


def _new(name: str, directory: str, scratch: str, tars: Tars | None) -> Overlay2 | Vfs:
    if name == "vfs":
        from minidock.drivers.vfs import Vfs

        return Vfs(f"{directory}/vfs")
    from minidock.drivers.overlay2 import Overlay2

    if tars is None:
        return Overlay2(f"{directory}/overlay2")
    from minidock.drivers.forms import choose
    from minidock.drivers.tarballs import Tarballs

    return Overlay2(f"{directory}/overlay2", Tarballs(f"{directory}/tarball", tars), choose(tars, scratch))


def _try(name: str, scratch: str) -> str:
    """What the driver lacks on this host, "" when it works."""
    for tries in reversed(range(_TRIES)):
        path = ""
        try:
            path = trees.new_directory(scratch, f"probe-{name}")
            with trees.opened(path) as fd:
                lock_exclusive(fd)
                try:
                    return _new(name, path, scratch, None).probe(path)
                finally:
                    with trees.opened(scratch) as parent:
                        trees.remove(os.path.basename(path), parent)
        except OSError as error:
            # Another process's sweep may have been quicker than the lock.
            if not tries or not path or os.path.lexists(path):
                return f"it cannot be tried out in {error.filename or path or scratch} ({error.strerror})"
    return ""


def _why_absent(name: str, directory: str) -> str:
    kind = _OF_A_FILE_SYSTEM.get(name)
    if kind is None:
        return _ABSENT.get(name, "minidock knows no driver of that name")
    path = directory
    while not os.path.isdir(path) and path not in {"", "/"}:
        path = os.path.dirname(path)
    found = fs_name(fs_magic(path or "."))
    if found != kind:
        return f"it needs {directory} on a {kind} file system, and that is on {found}"
    return f"minidock has no driver that uses {kind} snapshots"


def _unusable(name: str, problem: str, scratch: str) -> DriverError:
    usable = working(scratch) if os.path.isdir(scratch) else []
    hint = f"drivers that work on this host: {', '.join(usable)}" if usable else ""
    if not usable:
        hint = "no storage driver works here: run minidock as root on a local file system"
    return DriverError(f"the storage driver {name!r} cannot be used: {problem}", hint=hint)
