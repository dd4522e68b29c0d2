"""The Debian image: mmdebstrap's minimal system from the host's apt sources, without what is of one host or moment."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, BinaryIO

from minidock.drivers.tar_reader import TarReader
from minidock.engine.base_tar import BaseTar
from minidock.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Directories whose content goes, not they themselves.
_EMPTIED = ("dev", "run", "tmp", "var/cache/apt", "var/lib/apt/lists")
_KEPT = frozenset({"run/lock", "var/cache/apt/archives", "var/cache/apt/archives/partial", "var/lib/apt/lists/partial"})
_DROPPED = frozenset(
    {
        "etc/hostname",
        "etc/resolv.conf",
        "etc/machine-id",
        "etc/.pwd.lock",
        "etc/passwd-",
        "etc/group-",
        "etc/shadow-",
        "etc/gshadow-",
        "var/cache/ldconfig/aux-cache",
        "var/lib/dbus/machine-id",
    }
)
# As in docker's Debian images: no service is started by its package, apt keeps no archives, dpkg doesn't sync.
_ADDED = (
    ("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755),
    (
        "etc/apt/apt.conf.d/container",
        'APT::Keep-Downloaded-Packages "false";\n'
        'Binary::apt::APT::Keep-Downloaded-Packages "false";\n'
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };\n'
        'Dir::Cache::pkgcache "";\n'
        'Dir::Cache::srcpkgcache "";\n'
        'Acquire::Languages "none";\n',
        0o644,
    ),
    ("etc/dpkg/dpkg.cfg.d/container", "force-unsafe-io\n", 0o644),
)
_TAIL = 20


def find_mmdebstrap() -> str:
    """The program. Raises HostError naming the package when it is missing."""
    path = shutil.which("mmdebstrap", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise HostError(
            "mmdebstrap is not on this host", hint="install the Debian package mmdebstrap: apt-get install mmdebstrap"
        )
    return path


def make_tar(
    program: str, target: str, *, suite: str, sources: Sequence[str], epoch: int, tell: Callable[[str], None]
) -> None:
    """Let mmdebstrap write the tarball ``target``; ``tell`` gets its messages, line by line.

    No file in it is younger than ``epoch`` seconds. Raises HostError with the messages' end when it fails.
    """
    command = [program, "--variant=minbase", "--format=tar", suite, target, *sources]
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(epoch),
        "DEBIAN_FRONTEND": "noninteractive",
        **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
    }
    tail: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stderr is not None
        try:
            for data in process.stderr:
                line = data.decode("utf-8", "replace").rstrip()
                tail = [*tail[1 - _TAIL :], line]
                tell(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        errors = [line for line in tail if line.startswith("E:")] or tail[-1:] or ["it said nothing"]
        raise HostError(
            f"mmdebstrap could not make Debian {suite}: {errors[0].removeprefix('E: ')}",
            hint="check the suite's name, the network and the host's apt sources",
        )


def clean(source: BinaryIO, out: BinaryIO, *, mtime: int) -> None:
    """Copy a tarball of a Debian system without what belongs to this host or moment, and with what a container wants.

    Raises ArchiveError, OSError.
    """
    reader = TarReader(source)
    directories = set()
    with BaseTar(out, mtime=mtime) as tar:
        for entry in reader:
            if is_dropped(entry.name):
                continue
            directories.add(entry.name)
            tar.copy(entry, reader)
        if "dev" not in directories:
            tar.directory("dev")
        for name, text, mode in _ADDED:
            tar.text(name, text, mode)
        tar.finish()


def is_dropped(name: str) -> bool:
    """Whether a path is of this host or moment: device nodes, caches, lists, logs, backups, identities."""
    if name in _DROPPED or name.endswith((".dpkg-old", ".dpkg-dist")):
        return True
    if name.startswith(("var/cache/debconf/", "var/lib/dpkg/")) and name.endswith("-old"):
        return True
    if name.startswith("var/log/") and name.endswith(".log"):
        return True
    return name not in _KEPT and any(name.startswith(f"{directory}/") for directory in _EMPTIED)
