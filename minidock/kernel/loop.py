"""Loop devices: a file as a read-only block device, for kernels that mount a file system from nothing else.

Sources: loop(4), include/uapi/linux/loop.h (LOOP_CONFIGURE: Linux 5.8).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_CONTROL = "/dev/loop-control"
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_BLOCK = 512
# struct loop_config: fd, block_size; its struct loop_info64 up to lo_number, lo_encrypt_type, lo_encrypt_key_size and
# lo_flags, then lo_file_name[64], lo_crypt_name[64], lo_encrypt_key[32], lo_init[2]; reserved[8].
_CONFIG = "=II 40x 12x I 64s 112x 64x"
_ATTEMPTS = 1000


@contextmanager
def attached(path: str) -> Iterator[str]:
    """The path of a loop device, read-only and of 512-byte blocks, over the file at ``path``.

    It is free again when nobody has it open: at the end of the ``with``, or with the file system that was mounted from
    it meanwhile. Raises OSError with errno and path: ENOENT or ENODEV where the kernel has no loop devices.
    """
    backing = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        device_path, device = _attach(backing, path)
    finally:
        os.close(backing)
    try:
        yield device_path
    finally:
        os.close(device)


def _attach(backing: int, path: str) -> tuple[str, int]:
    flags = _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR
    config = struct.pack(_CONFIG, backing, _BLOCK, flags, os.fsencode(path)[:63])
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            device_path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(device_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                # Another was faster: the device was free, but not reserved.
                if error.errno != errno.EBUSY:
                    raise OSError(error.errno, error.strerror, device_path) from None
            else:
                return device_path, device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "every free loop device was taken by others", path)
