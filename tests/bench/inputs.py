"""What the benchmarks are made of: base images, contexts and tarballs that no tool has seen before."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

from minidock.kernel.pinned import Pinned
from minidock.store.layout import DataRoot

_CACHE = Path("/var/cache/minidock-tests")
_BLOCK = 1_000_000


def busybox_tar(scratch: Path) -> Path:
    """A tarball of a root file system that is busybox and its applets."""
    tree = scratch / "tree"
    for name in ("bin", "etc", "proc", "sys", "dev", "root", "tmp"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    listed = subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in listed:
        if applet != "busybox":
            (tree / "bin" / applet).hardlink_to(tree / "bin/busybox")
    tar = scratch / "busybox.tar"
    subprocess.run(["tar", "-C", tree, "-cf", tar, "."], check=True)
    return tar


def debian_tar() -> Path:
    """A minimal Debian as a tarball, the one of the tests: made once a machine from its own apt sources."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    tar = _CACHE / "debian.tar"
    if not tar.exists():
        part = _CACHE / "debian.part.tar"
        release = dict(line.partition("=")[::2] for line in Path("/etc/os-release").read_text().splitlines())
        suite = release["VERSION_CODENAME"].strip('"')
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", suite, part], check=True, timeout=600)
        part.rename(tar)
    return tar


def new_tar(source: Path, target: Path) -> None:
    """Copy a tarball to ``target`` with one file more, so that its digest is one that nobody knows."""
    shutil.copyfile(source, target)
    with tarfile.open(target, "a") as tar:
        entry = tarfile.TarInfo("stamp")
        content = _stamp()
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))


def write_files(folder: Path, count: int = 10_000) -> None:
    """Fill a new folder with files of 8 KiB, a hundred to a directory."""
    folder.mkdir()
    for number in range(count):
        place = folder / f"d{number // 100}"
        place.mkdir(exist_ok=True)
        (place / f"f{number}").write_bytes(os.urandom(512) * 16)


def write_big(path: Path, size: int) -> None:
    """Write one file of ``size`` bytes in which no block is like one that was written before."""
    block = bytearray(os.urandom(_BLOCK))
    with open(path, "wb") as file:
        for number in range(-(-size // _BLOCK)):
            head = _stamp() + b" %d\n" % number
            block[: len(head)] = head
            file.write(memoryview(block)[: size - number * _BLOCK])


class Contexts:
    """Contexts of builds below ``scratch``: each call makes one whose content was never there before."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._count = 0

    def plain(self, text: str) -> Path:
        """A context with nothing but a Dockerfile."""
        self._count += 1
        folder = self._scratch / f"context{self._count}"
        folder.mkdir()
        (folder / "Dockerfile").write_text(text)
        return folder

    def files(self, text: str) -> Path:
        """A context with 10,000 files in ``files``.

        The former one stays: ext4 makes files slowly for a minute after many were deleted (inodes that were freed
        lately are passed over one by one), which would be paid for by whoever is next.
        """
        folder = self.plain(text)
        write_files(folder / "files")
        return folder

    def big(self, text: str, size: int) -> Path:
        """A context with one file ``big`` of ``size`` bytes."""
        folder = self.plain(text)
        write_big(folder / "big", size)
        return folder


def let_go(root: Path) -> None:
    """Unmount the layers of a data root that is about to be deleted: they would keep its tarballs on the disk."""
    layout = DataRoot(str(root))
    if os.path.isdir(layout.run):
        pinned = Pinned(f"{layout.run}/layers")
        with pinned.lock():
            pinned.unpin()


def load() -> str:
    """The load of the machine, as uptime tells it."""
    return "load " + " ".join(f"{value:.2f}" for value in os.getloadavg())


def _stamp() -> bytes:
    return b"%d %d" % (os.getpid(), time.time_ns())
