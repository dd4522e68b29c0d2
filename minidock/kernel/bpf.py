"""The device program of a version 2 control group: BPF_PROG_TYPE_CGROUP_DEVICE (bpf(2), include/uapi/linux/bpf.h).

Version 2 has no devices controller; a program that is attached to the group says whether a device may be opened or
made. It gets the wanted access (make 1, read 2, write 4) and type (block 1, character 2) in one word, then major and
minor, and returns 1 to allow.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from minidock.kernel.syscall import SYS_BPF, syscall

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_GET_FD_BY_ID = 13
_PROG_QUERY = 16
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2
_REPLACE = 4

_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

# Opcodes: class | source | operation.
_LOAD_WORD = 0x61
_MOVE = 0xB7
_MOVE_REGISTER = 0xBF
_AND = 0x57
_SHIFT_RIGHT = 0x77
_JUMP_EQUAL = 0x15
_JUMP_NOT_EQUAL = 0x55
_EXIT = 0x95

_INSTRUCTION = struct.Struct("<BBhi")
_REPLACE_ATTEMPTS = 20
_QUERY_MAX = 64


def assemble(rules: Iterable[tuple[bool, str, int | None, int | None, str]]) -> bytes:
    """The program for rules of (allow, kind a|b|c, major, minor, access), None meaning any; the default is to deny.

    Each wanted kind of access is decided by the last rule that speaks of it, as the writes of version 1 would: the
    rules are emitted last to first, an allow takes its access from what is still undecided and returns 1 when that is
    nothing, a deny returns 0 when it touches what is still undecided.
    """
    # r2 type, r3 access not decided yet, r4 major, r5 minor.
    code = [
        _instruction(_LOAD_WORD, 2, source=1, offset=0),
        _instruction(_MOVE_REGISTER, 3, source=2),
        _instruction(_AND, 2, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, 3, value=16),
        _instruction(_LOAD_WORD, 4, source=1, offset=4),
        _instruction(_LOAD_WORD, 5, source=1, offset=8),
    ]
    for rule in reversed(tuple(rules)):
        code += _rule(*rule)
    code += [_instruction(_MOVE, 0, value=0), _instruction(_EXIT)]
    return b"".join(code)


def limit_devices(cgroup: str, rules: Iterable[tuple[bool, str, int | None, int | None, str]]) -> None:
    """Attach the program for ``rules`` to the directory ``cgroup``, in place of the one program there if there is one.

    Raises OSError: whoever asked must not go on without the limit.
    """
    group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        program = prog_load(assemble(rules))
        try:
            prog_attach(group, program, path=cgroup)
        finally:
            os.close(program)
    finally:
        os.close(group)


def prog_load(code: bytes) -> int:
    """Load a device program; return its descriptor. Raises OSError with the verifier's words.

    Kernels before 5.11 charge programs to RLIMIT_MEMLOCK, so that is raised once if the kernel refuses.
    """
    try:
        return _load(code)
    except PermissionError:
        if not _raise_memlock():
            raise
    return _load(code)


def prog_attach(cgroup: int, program: int, *, path: str = "") -> None:
    """Attach ``program`` to the group behind the descriptor ``cgroup``, beside programs of its ancestors.

    A program that is there alone is replaced in one step; that it vanishes meanwhile is tried again 20 times, and a
    kernel without replacement (before 5.6) gets the program beside it, which can only deny more. Raises OSError.
    """
    for _ in range(_REPLACE_ATTEMPTS):
        present = prog_query(cgroup)
        if len(present) != 1:
            break
        try:
            old = _bpf(_PROG_GET_FD_BY_ID, struct.pack("<III", present[0], 0, 0), path)
        except FileNotFoundError:
            continue
        try:
            _attach(cgroup, program, _ALLOW_MULTI | _REPLACE, old, path)
            return
        except OSError as error:
            if error.errno == errno.EINVAL:
                break
            if error.errno != errno.ENOENT:
                raise
        finally:
            os.close(old)
    _attach(cgroup, program, _ALLOW_MULTI, 0, path)


def prog_query(cgroup: int) -> list[int]:
    """The IDs of the device programs attached to the group itself. Raises OSError."""
    ids = (ctypes.c_uint32 * _QUERY_MAX)()
    attributes = ctypes.create_string_buffer(
        struct.pack("<IIIIQII", cgroup, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _QUERY_MAX, 0)
    )
    syscall(SYS_BPF, _PROG_QUERY, attributes, 32)
    count = struct.unpack_from("<I", attributes, 24)[0]
    return list(ids[:count])


def _rule(allow: bool, kind: str, major: int | None, minor: int | None, access: str) -> list[bytes]:
    bits = 0
    for letter in access:
        bits |= _ACCESS[letter]
    conditions = [(register, value) for register, value in ((4, major), (5, minor)) if value is not None]
    if kind != "a":
        conditions.insert(0, (2, _TYPES[kind]))
    if allow:
        body = [
            _instruction(_AND, 3, value=~bits & 7),
            _instruction(_JUMP_NOT_EQUAL, 3, offset=2, value=0),
            _instruction(_MOVE, 0, value=1),
            _instruction(_EXIT),
        ]
    else:
        body = [
            _instruction(_MOVE_REGISTER, 1, source=3),
            _instruction(_AND, 1, value=bits),
            _instruction(_JUMP_EQUAL, 1, offset=2, value=0),
            _instruction(_MOVE, 0, value=0),
            _instruction(_EXIT),
        ]
    skip = len(conditions) + len(body)
    tests = [
        _instruction(_JUMP_NOT_EQUAL, register, offset=skip - index - 1, value=value)
        for index, (register, value) in enumerate(conditions)
    ]
    return tests + body


def _instruction(opcode: int, target: int = 0, *, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return _INSTRUCTION.pack(opcode, target | source << 4, offset, value)


def _load(code: bytes) -> int:
    log = ctypes.create_string_buffer(8192)
    instructions = ctypes.create_string_buffer(code, len(code))
    # A program that calls no GPL-only helper needs no particular licence; the field must be there.
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "<IIQQIIQII16s",
        _PROG_TYPE_CGROUP_DEVICE,
        len(code) // _INSTRUCTION.size,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        1,
        len(log),
        ctypes.addressof(log),
        0,
        0,
        b"minidock_dev",
    )
    try:
        return _bpf(_PROG_LOAD, attributes, "")
    except OSError as error:
        reason = log.value.decode("utf-8", "replace").strip().splitlines()
        if error.errno == errno.EPERM or not reason:
            raise
        raise OSError(error.errno, f"the kernel refuses the device program: {reason[-1]}") from None


def _attach(cgroup: int, program: int, flags: int, replace: int, path: str) -> None:
    _bpf(_PROG_ATTACH, struct.pack("<IIIII", cgroup, program, _ATTACH_CGROUP_DEVICE, flags, replace), path)


def _bpf(command: int, attributes: bytes, path: str) -> int:
    return syscall(SYS_BPF, command, attributes, len(attributes), path=path)


def _raise_memlock() -> bool:
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        return False
    return True
