"""The busybox image: the host's static busybox, each applet a hard link in /bin, and what a small system needs."""

from __future__ import annotations

import os
import struct
import subprocess
from typing import TYPE_CHECKING, BinaryIO

from minidock.engine.base_tar import BaseTar
from minidock.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

PATHS = ("/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox")
_HINT = "install the Debian package busybox-static: apt-get install busybox-static"
_PT_INTERP = 3
# Applet names come from the program; whatever is no plain file name never becomes an entry.
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789[._-+")

_DIRECTORIES = (
    ("", 0o755),
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/spool/mail", 0o755),
    ("var/tmp", 0o1777),
    ("var/www", 0o755),
)
_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
kmem:x:9:
wheel:x:10:root
cdrom:x:11:
dialout:x:18:
floppy:x:19:
video:x:28:
audio:x:29:
tape:x:32:
www-data:x:33:
operator:x:37:
utmp:x:43:
plugdev:x:46:
staff:x:50:
lock:x:54:
netdev:x:82:
users:x:100:
nogroup:x:65534:
"""


def find_busybox(paths: Sequence[str] = PATHS) -> str:
    """The host's static busybox. Raises HostError naming the package when there is none."""
    there = [path for path in paths if os.path.isfile(path)]
    for path in there:
        if is_static(path):
            return path
    if there:
        raise HostError(f"the busybox at {there[0]} needs the host's libraries", hint=_HINT)
    raise HostError("no busybox is on this host", hint=_HINT)


def is_static(path: str) -> bool:
    """Whether an ELF program (elf(5)) asks for no interpreter. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:4] != b"\x7fELF" or head[5] != 1:
            return False
        wide = head[4] == 2
        offset, size, count = (
            (*struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54))
            if wide
            else (*struct.unpack_from("<I", head, 28), *struct.unpack_from("<HH", head, 42))
        )
        file.seek(offset)
        table = file.read(size * count)
    return all(
        struct.unpack_from("<I", table, start)[0] != _PT_INTERP for start in range(0, len(table) - 3, max(size, 1))
    )


def applets(path: str) -> list[str]:
    """The names that this busybox answers to, sorted. Raises HostError when it cannot be run."""
    try:
        done = subprocess.run([path, "--list"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"cannot run {path}: {error}", hint=_HINT) from error
    names = {name for name in done.stdout.split() if _NAME.issuperset(name) and name not in {".", "..", "busybox"}}
    if "sh" not in names:
        raise HostError(f"the busybox at {path} has no shell", hint=_HINT)
    return sorted(names)


def write_tar(out: BinaryIO, *, busybox: str, names: Sequence[str], mtime: int) -> None:
    """Write the image's tarball; the same arguments give the same bytes. Raises OSError."""
    with BaseTar(out, mtime=mtime) as tar:
        for directory, mode in _DIRECTORIES:
            tar.directory(directory, mode)
        tar.host_file("bin/busybox", busybox, 0o755)
        for name in names:
            tar.hard_link(f"bin/{name}", "bin/busybox", 0o755)
        # Scripts of other systems begin so.
        tar.symlink("usr/bin/env", "../../bin/env")
        tar.text("etc/passwd", _PASSWD)
        tar.text("etc/group", _GROUP)
        tar.text("etc/shadow", "".join(f"{line.split(':')[0]}:*:::::::\n" for line in _PASSWD.splitlines()), 0o640)
        tar.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        tar.finish()
