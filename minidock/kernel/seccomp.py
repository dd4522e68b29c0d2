"""System call filters: compiled by libseccomp to a BPF program, loaded by seccomp(2).

Compiling needs pyseccomp and takes tens of milliseconds; a program once compiled is plain bytes and loads alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from minidock.kernel.syscall import SYS_SECCOMP, syscall

ALLOW = 0x7FFF0000
LOG = 0x7FFC0000
KILL_THREAD = 0x00000000
KILL_PROCESS = 0x80000000
TRAP = 0x00030000

NE, LT, LE, EQ, GE, GT, MASKED_EQ = range(1, 8)

_SET_MODE_FILTER = 1
_FLAG_LOG = 2
_FLAG_SPEC_ALLOW = 4
_BINARY_TREE = 2
_LIBRARY = "libseccomp.so.2"

# From 424 on every machine has the same numbers (arch/*/syscall*.tbl), so calls that are newer than the installed
# libseccomp can be told by number.
_COMMON_FROM = 424
_NEWER = {
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "memfd_secret": 447,
    "process_mrelease": 448,
    "futex_waitv": 449,
    "set_mempolicy_home_node": 450,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
_NEWEST = max(_NEWER.values())

# Classic BPF (include/uapi/linux/bpf_common.h): what the prologue needs.
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_NOT_BELOW = 0x05, 0x15, 0x25, 0x35
# The low half of the first argument: every machine that has socketcall here is little-endian.
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENT = 0, 4, 16
_X32_BIT = 0x40000000
# x32's own numbers, far above the common ones (arch/x86/entry/syscalls/syscall_64.tbl); there will be no more of them.
_X32_FIRST, _X32_LAST = _X32_BIT + 512, _X32_BIT + 547


# i386's socketcall(2) and what its first argument means (include/uapi/linux/net.h).
_I386_SOCKETCALL = 102
_SOCKETCALLS = (
    *("", "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv"),
    *("sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg"),
    "sendmmsg",
)


class Comparison(NamedTuple):
    """Argument number ``argument`` (0 to 5) compared with ``value``; MASKED_EQ: (it & value) == ``value_two``."""

    argument: int
    op: int
    value: int
    value_two: int = 0


class Rule(NamedTuple):
    """The names of system calls that get ``action`` when every comparison holds."""

    action: int
    names: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()


def error_action(number: int) -> int:
    """The action that lets a call fail with this errno."""
    return 0x00050000 | (number & 0xFFFF)


def trace_action(number: int) -> int:
    """The action that hands a call to a tracer with this message."""
    return 0x7FF00000 | (number & 0xFFFF)


def compile_filter(default_action: int, rules: Iterable[Rule], archs: Sequence[str]) -> bytes:
    """The BPF program for ``rules``; calls that match none get ``default_action``.

    ``archs`` are libseccomp's names (``x86_64``, ``x86``, ``x32``, ``aarch64``, ...) beside the native one; calls of
    any other are killed. A rule whose action is the default's is passed over, so is a name that neither libseccomp nor
    this module knows (``unknown_names``). Where the default is an errno, calls newer than any known one get ENOSYS
    instead: the C library falls back only on that. What libseccomp opens of i386's socketcall beside a rule about a
    call's arguments stays closed (``_closed_socketcalls``). Raises OSError.
    """
    import pyseccomp

    program = pyseccomp.SyscallFilter(default_action)
    program.set_attr(pyseccomp.Attr.CTL_NNP, 0)
    if _library_version() >= (2, 5, 0):
        program.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    tokens = {pyseccomp.system_arch()}
    for name in archs:
        arch = getattr(pyseccomp.Arch, name.upper(), None)
        if arch is None:
            raise OSError(errno.EINVAL, f"unknown architecture {name!r}")
        if arch not in tokens:
            program.add_arch(arch)
            tokens.add(arch)
    newer: dict[int, int] = {}
    rules = tuple(rules)
    for rule in rules:
        if rule.action == default_action:
            continue
        arguments = [pyseccomp.Arg(c.argument, c.op, c.value, c.value_two) for c in rule.comparisons]
        for name in rule.names:
            if pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) != -1:
                program.add_rule(rule.action, name, *arguments)
            elif name in _NEWER and not arguments:
                newer.setdefault(_NEWER[name], rule.action)
    x32 = pyseccomp.Arch.X32 in tokens
    words = {_audit_arch(token, pyseccomp.Arch.X32, pyseccomp.Arch.X86_64) for token in tokens}
    beyond = error_action(errno.ENOSYS) if default_action & 0xFFFF0000 == error_action(0) else default_action
    closed = _closed_socketcalls(rules, default_action) if pyseccomp.Arch.X86 in tokens else ()
    before = _close_socketcalls(closed, int(pyseccomp.Arch.X86), default_action) if closed else b""
    return before + _prologue(sorted(words), newer, beyond, x32=x32) + _export(program)


def unknown_names(names: Iterable[str]) -> tuple[str, ...]:
    """Those that are no system call of this machine as far as libseccomp and this module know, sorted."""
    import pyseccomp

    arch = pyseccomp.system_arch()
    return tuple(sorted(name for name in names if name not in _NEWER and pyseccomp.resolve_syscall(arch, name) == -1))


def load(program: bytes, *, log: bool = False) -> None:
    """Put the calling thread under ``program``; it holds for its children and over exec.

    Speculation is left as it is (SPEC_ALLOW, retried without for kernels that do not know it); ``log`` asks the kernel
    to log refused calls. Needs CAP_SYS_ADMIN or no_new_privs. Raises OSError.
    """
    if not program or len(program) % _INSTRUCTION.size:
        raise OSError(errno.EINVAL, "not a seccomp program")
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count of 16 bits, then an aligned pointer.
    header = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(instructions))
    flags = _FLAG_LOG if log else 0
    try:
        syscall(SYS_SECCOMP, _SET_MODE_FILTER, flags | _FLAG_SPEC_ALLOW, header)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        syscall(SYS_SECCOMP, _SET_MODE_FILTER, flags, header)


def library_mark() -> str:
    """A text that changes with the installed libseccomp: the name behind its link, found without loading it."""
    machine = os.uname().machine
    for directory in (f"/usr/lib/{machine}-linux-gnu", f"/lib/{machine}-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"):
        try:
            return os.readlink(f"{directory}/{_LIBRARY}")
        except OSError:
            continue
    return ".".join(map(str, _library_version()))


def _library_version() -> tuple[int, int, int]:
    class Version(ctypes.Structure):
        _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))

    library = ctypes.CDLL(_LIBRARY)
    library.seccomp_version.restype = ctypes.POINTER(Version)
    version = library.seccomp_version().contents
    return version.major, version.minor, version.micro


def _audit_arch(token: int, x32: int, x86_64: int) -> int:
    """x32 is told from x86_64 by a bit of the call's number, not by the architecture's word."""
    return x86_64 if token == x32 else token


def _prologue(archs: Sequence[int], newer: dict[int, int], beyond: int, *, x32: bool) -> bytes:
    """What decides calls that libseccomp does not know, before its program: ``newer`` by number, later ones ``beyond``.

    It falls through to the program for everything else.
    """
    checks: list[bytes] = []
    for number, action in sorted(newer.items()):
        checks += [_instruction(_JUMP_EQUAL, number, on_false=1), _instruction(_RETURN, action)]
    # Without x32 a number with its bit is left to the program, which kills for a foreign architecture.
    checks += [
        _instruction(_JUMP_NOT_BELOW, _X32_BIT, on_true=2),
        _instruction(_JUMP_GREATER, _NEWEST, on_false=1),
        _instruction(_RETURN, beyond),
    ]
    common = [_instruction(_JUMP_NOT_BELOW, _COMMON_FROM, on_false=len(checks)), *checks]
    if x32:
        own = len(common) + 1
        common = [
            _instruction(_JUMP_NOT_BELOW, _X32_FIRST, on_false=1),
            _instruction(_JUMP_GREATER, _X32_LAST, on_false=own),
            _instruction(_AND, ~_X32_BIT & 0xFFFFFFFF),
            *common,
        ]
    body = [_instruction(_LOAD, _OFFSET_NUMBER), *common]
    head = [_instruction(_LOAD, _OFFSET_ARCH)]
    head += [_instruction(_JUMP_EQUAL, arch, on_true=len(archs) - index) for index, arch in enumerate(archs)]
    head.append(_instruction(_JUMP, len(body)))
    return b"".join(head + body)


def _closed_socketcalls(rules: Sequence[Rule], default_action: int) -> tuple[int, ...]:
    """The numbers of i386's socketcall(2) that must get the default action, 0 for all.

    A rule that allows ``socket`` makes libseccomp allow ``socketcall(SYS_SOCKET)`` too, and with any arguments, for
    they lie behind a pointer: a profile that allows some families would allow them all (containerd#13330). So what a
    profile allows by arguments alone is closed there, and everything where it gives ``socketcall`` the default action,
    which libseccomp is never told. A profile that allows ``socketcall`` means it.
    """
    if default_action in (ALLOW, LOG):
        return ()
    named = [rule.action for rule in rules if "socketcall" in rule.names]
    if named:
        return () if any(action != default_action for action in named) else (0,)
    opened = {name for rule in rules if rule.action != default_action for name in rule.names}
    whole = {name for rule in rules if rule.action != default_action and not rule.comparisons for name in rule.names}
    return tuple(number for number, name in enumerate(_SOCKETCALLS) if name in opened - whole)


def _close_socketcalls(numbers: Sequence[int], arch: int, action: int) -> bytes:
    """What answers those calls before all else, and falls through for everything else."""
    refuse = _instruction(_RETURN, action)
    if 0 in numbers:
        tests = [refuse]
    else:
        tests = [_instruction(_LOAD, _OFFSET_ARGUMENT)]
        for number in numbers:
            tests += [_instruction(_JUMP_EQUAL, number, on_false=1), refuse]
    head = [
        _instruction(_LOAD, _OFFSET_ARCH),
        _instruction(_JUMP_EQUAL, arch, on_false=len(tests) + 2),
        _instruction(_LOAD, _OFFSET_NUMBER),
        _instruction(_JUMP_EQUAL, _I386_SOCKETCALL, on_false=len(tests)),
    ]
    return b"".join(head + tests)


def _instruction(opcode: int, value: int, *, on_true: int = 0, on_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(opcode, on_true, on_false, value)


def _export(program: Any) -> bytes:
    """libseccomp writes to a file only: a memory file."""
    with open(os.memfd_create("seccomp", os.MFD_CLOEXEC), "rb") as file:
        program.export_bpf(file)
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
