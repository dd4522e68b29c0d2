"""Finding the command inside the container, and saying why one cannot be executed.

All of this runs inside the container's root, after the user has changed (real and effective one), so that it sees what
exec will see.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from minidock.errors import CommandNotExecutableError, CommandNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INSTALL_HANDLERS = "install the Debian packages qemu-user-static and binfmt-support, which register one"
_HEAD = 4096
_PT_INTERP = 3
_MACHINES = {"x86_64": (62, 3), "aarch64": (183, 40)}
_MACHINE_NAMES = {3: "x86 (32-bit)", 8: "MIPS", 20: "PowerPC", 21: "PowerPC 64", 22: "S390", 40: "ARM", 62: "x86_64"}
_MACHINE_NAMES |= {183: "aarch64", 243: "RISC-V", 258: "LoongArch"}


def find_program(name: str, search: str, *, doubt: Callable[[CommandNotExecutableError], None]) -> str:
    """The path of ``name``: itself if it has a slash, else the first executable of that name in ``search``, a PATH.

    A program of another machine runs where the host's binfmt_misc has a handler for it, which cannot be seen in here:
    ``doubt`` is called with what is wrong, should the kernel refuse it. Raises CommandNotFoundError (127) or
    CommandNotExecutableError (126); a missing shebang interpreter or ELF loader is named, since exec's own answer would
    be a bare "no such file or directory".
    """
    if not name:
        raise CommandNotFoundError("the command is an empty string")
    if "/" in name:
        _check(name, name, doubt)
        return name
    refused = ""
    for directory in (search or _DEFAULT_PATH).split(":"):
        path = f"{directory or '.'}/{name}"
        if not os.path.isfile(path):
            continue
        if os.access(path, os.X_OK):
            _check(path, name, doubt)
            return path
        refused = refused or path
    if refused:
        raise CommandNotExecutableError(f"exec {name!r}: {refused} is not executable: permission denied")
    raise CommandNotFoundError(f"exec {name!r}: executable file not found in $PATH")


def _check(path: str, name: str, doubt: Callable[[CommandNotExecutableError], None]) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise CommandNotFoundError(f"exec {name!r}: no such file or directory") from None
    except OSError as error:
        raise CommandNotExecutableError(f"exec {name!r}: {_lower(error)}") from None
    if stat.S_ISDIR(status.st_mode):
        raise CommandNotExecutableError(f"exec {name!r}: is a directory")
    if not stat.S_ISREG(status.st_mode):
        # Not opened, since that may wait for ever; the kernel's own answer to exec is this one.
        raise CommandNotExecutableError(f"exec {name!r}: it is no regular file: permission denied")
    if not os.access(path, os.X_OK):
        raise CommandNotExecutableError(f"exec {name!r}: permission denied")
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD)
    except OSError:
        # A program may be executable without being readable; then the kernel's answer has to do.
        return
    if head[:2] == b"#!":
        _check_shebang(name, head)
    elif head[:4] == b"\x7fELF":
        _check_elf(name, head, doubt)


def _check_shebang(name: str, head: bytes) -> None:
    # The kernel parts words at blanks and tabs only: a carriage return belongs to the interpreter's name.
    line = head[2:].split(b"\n", 1)[0].strip(b" \t")
    interpreter = os.fsdecode(line.replace(b"\t", b" ").split(b" ", 1)[0])
    if line.endswith(b"\r") and not os.path.exists(interpreter):
        raise CommandNotFoundError(
            f"exec {name!r}: its first line ends with a carriage return, so its interpreter is not found",
            hint="convert the script to Unix line ends",
        )
    if interpreter and not os.path.exists(interpreter):
        raise CommandNotFoundError(f"exec {name!r}: its interpreter {interpreter!r} does not exist in the image")


def _check_elf(name: str, head: bytes, doubt: Callable[[CommandNotExecutableError], None]) -> None:
    if len(head) < 64:
        return
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    known = _MACHINES.get(os.uname().machine)
    if known and machine not in known:
        built_for = _MACHINE_NAMES.get(machine, f"machine {machine}")
        doubt(
            CommandNotExecutableError(
                f"exec {name!r}: exec format error: it is built for {built_for}, this host is {os.uname().machine}",
                hint=f"binfmt_misc of the host has no handler with flag F for it; {INSTALL_HANDLERS}",
            )
        )
        return
    if head[5] != 1:
        return
    wide = head[4] == 2
    width = 8 if wide else 4
    table = int.from_bytes(head[32 : 32 + width] if wide else head[28 : 28 + width], "little")
    size, count = (int.from_bytes(head[o : o + 2], "little") for o in ((54, 56) if wide else (42, 44)))
    for index in range(count):
        entry = head[table + index * size : table + (index + 1) * size]
        if len(entry) < size or int.from_bytes(entry[:4], "little") != _PT_INTERP:
            continue
        at, length = (8, 32) if wide else (4, 16)
        offset = int.from_bytes(entry[at : at + width], "little")
        span = int.from_bytes(entry[length : length + width], "little")
        loader = os.fsdecode(head[offset : offset + span].rstrip(b"\0"))
        if loader.startswith("/") and not os.path.exists(loader):
            raise CommandNotFoundError(f"exec {name!r}: its loader {loader!r} does not exist in the image")
        return


def exec_failure(name: str, number: int) -> CommandNotFoundError | CommandNotExecutableError:
    """The error for an exec that the kernel refused with errno ``number``."""
    text = os.strerror(number).lower()
    if number == errno.E2BIG:
        return CommandNotExecutableError(
            f"exec {name!r}: {text}", hint="all arguments and environment variables together exceed the kernel's limit"
        )
    if number == errno.ENOENT:
        return CommandNotFoundError(f"exec {name!r}: {text}")
    return CommandNotExecutableError(f"exec {name!r}: {text}")


def _lower(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
