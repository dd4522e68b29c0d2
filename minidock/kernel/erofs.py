"""EROFS: a read-only file system whose index is one file and whose files' content lies in another, a layer's tarball.

Sources: Documentation/filesystems/erofs.rst, fs/erofs/super.c; Documentation/ABI/testing/sysfs-class-bdi.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from minidock.kernel.mount import FSCONFIG_STRING_MAX, MOUNT_ATTR_RDONLY, new_mount

_READ_AHEAD_KIB = 1024
_BACKING_DEVICES = "/sys/class/bdi"


def mount(index: str, tar: str, *, loop: bool = False) -> int:
    """A descriptor of a detached read-only mount of the file ``index``, whose one device is the file ``tar``.

    Each call makes a file system with a page cache of its own: what many use is mounted once and cloned. The mount
    keeps both files open; their paths are not needed any more. The kernel mounts files from Linux 6.12 on (ENOTBLK
    before, and for an ``index`` that does not lie on a disk file system); with ``loop`` each is handed over as a loop
    device, which needs Linux 6.4 for blocks of 512 bytes. Raises OSError with errno, the kernel's text where it has
    one, and the path of the index.
    """
    with ExitStack() as stack:
        if loop:
            from minidock.kernel.loop import attached

            source, device = stack.enter_context(attached(index)), stack.enter_context(attached(tar))
        else:
            source, device = _short(index, stack), _short(tar, stack)
        try:
            # "ro" is for the superblock: without it a loop device would be opened for writing.
            options = [("device", device), ("ro", None)]
            fd = new_mount("erofs", options, attrs=MOUNT_ATTR_RDONLY, source=source)
        except OSError as error:
            raise OSError(error.errno, error.strerror, index) from None
    if not loop:
        _read_ahead(tar)
    return fd


def _short(path: str, stack: ExitStack) -> str:
    """The path, or one that leads to the opened file where it is longer than a parameter may be."""
    if len(os.fsencode(path)) <= FSCONFIG_STRING_MAX:
        return path
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return f"/proc/self/fd/{fd}"


def _read_ahead(tar: str) -> None:
    """Let the newest file-backed mount read ahead as far as the disk that ``tar`` lies on, and at least 1 MiB.

    The kernel's 128 KiB make the first start of a program a quarter slower than from a tree on the disk. Nothing says
    which backing device is which mount's, but they are numbered in order; where another was mounted meanwhile that one
    is set in place of this, and where /sys is missing or read-only the kernel's value stays.
    """
    with suppress(OSError, ValueError):
        numbers = [name.removeprefix("erofs-") for name in os.listdir(_BACKING_DEVICES) if name.startswith("erofs-")]
        newest = max(map(int, numbers), default=0)
        size = max(_READ_AHEAD_KIB, _disk_read_ahead(tar))
        with open(f"{_BACKING_DEVICES}/erofs-{newest}/read_ahead_kb", "w", encoding="ascii") as file:
            file.write(str(size))


def _disk_read_ahead(path: str) -> int:
    """KiB that the disk beneath a file reads ahead; 0 where that is not known."""
    device = os.stat(path).st_dev
    block = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    # Of a partition only the disk above it has one.
    for folder in (block, f"{block}/.."):
        with suppress(OSError, ValueError), open(f"{folder}/bdi/read_ahead_kb", encoding="ascii") as file:
            return int(file.read())
    return 0
