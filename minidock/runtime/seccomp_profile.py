"""Seccomp profiles in docker's JSON form, which holds the OCI runtime spec's too: from bytes to rules for this machine.

What is asked of a profile is what docker asks (moby/profiles/seccomp) and what runc does with the result; whatever else
makes no sense is refused at once, in one sentence. Two things are stricter. The kernel takes many arguments as 32 bits
wide and ignores what is above, while a filter sees 64: such an argument is compared by its low 32 bits, so that
``socket(AF_ALG + 2**32)`` is what it is. And ``SCMP_ACT_NOTIFY`` has nobody to notify here: it is refused.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from minidock.errors import UsageError
from minidock.kernel import seccomp as kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_BYTES = 4 << 20
_MAX_ERRNO = 4095
_MAX_RULES = 4096
_LOW = 0xFFFFFFFF

_ACTIONS = {
    "SCMP_ACT_ALLOW": kernel.ALLOW,
    "SCMP_ACT_LOG": kernel.LOG,
    "SCMP_ACT_KILL": kernel.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": kernel.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": kernel.KILL_PROCESS,
    "SCMP_ACT_TRAP": kernel.TRAP,
}
_OPERATORS = {
    "SCMP_CMP_NE": kernel.NE,
    "SCMP_CMP_LT": kernel.LT,
    "SCMP_CMP_LE": kernel.LE,
    "SCMP_CMP_EQ": kernel.EQ,
    "SCMP_CMP_GE": kernel.GE,
    "SCMP_CMP_GT": kernel.GT,
    "SCMP_CMP_MASKED_EQ": kernel.MASKED_EQ,
}
# Names that docker's profiles and uname use, to libseccomp's in lower case.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

# The arguments of which the kernel looks at no more than 32 bits (SYSCALL_DEFINE in its sources), for calls that a
# profile may want to tell apart by them.
_NARROW_CALLS = (
    ((0,), "clone personality prctl keyctl socketcall quotactl clock_settime clock_settime64 clock_adjtime syslog"),
    ((0,), "setuid setuid32 setgid setgid32 setfsuid setfsuid32 setfsgid setfsgid32 setrlimit"),
    ((0, 1), "ioctl fcntl fcntl64 setns kill tkill seccomp ipc fchmod sched_setscheduler prlimit64"),
    ((0, 1), "setreuid setreuid32 setregid setregid32"),
    ((0, 1, 2), "socket socketpair setsockopt getsockopt tgkill reboot ioprio_set"),
    ((0, 1, 2), "setresuid setresuid32 setresgid setresgid32"),
    ((0, 2), "bpf openat fchmodat"),
    ((0, 2, 3), "mknodat"),
    ((1, 2), "open mknod"),
    ((1,), "chmod memfd_create"),
)
_NARROW = {name: frozenset(indexes) for indexes, names in _NARROW_CALLS for name in names.split()}


class Profile(NamedTuple):
    """What a profile says for one machine, kernel and bounding set, as ``kernel.compile_filter`` takes it."""

    action: int
    rules: list[kernel.Rule]
    archs: tuple[str, ...]


class _InvalidError(Exception):
    """What is wrong with a profile, in words."""


def read_profile(path: str) -> bytes:
    """The bytes of a profile's file. Raises UsageError if it cannot be read, is empty or larger than 4 MiB."""
    try:
        # Not to wait for a writer, should it be a pipe.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the seccomp profile {path!r}: {(error.strerror or '').lower()}") from None
    if not content or len(content) > MAX_BYTES:
        raise UsageError(f"the seccomp profile {path!r} is empty or larger than {MAX_BYTES >> 20} MiB")
    return content


def from_json(content: bytes, *, bounding: frozenset[str], release: str, name: str, machine: str = "") -> Profile:
    """Read a profile for this machine, or for ``machine``. Raises UsageError, naming the profile.

    Comparisons of one rule hold together, but several on one argument are taken one by one, as runc does, because
    libseccomp cannot join them.
    """
    machine = machine or os.uname().machine
    try:
        profile = _object(_parse(content), "the profile")
        if "defaultAction" not in profile:
            _fail("it has no defaultAction")
        action = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        rules: list[kernel.Rule] = []
        for value in _list(profile.get("syscalls"), "syscalls"):
            entry = _object(value, "an entry of syscalls")
            # Read even if it does not apply here: a mistake is told on every machine.
            read = list(_entry_rules(entry))
            if _applies(entry, bounding=bounding, machine=machine, release=release):
                rules += read
        return Profile(action, rules, _architectures(profile, machine))
    except _InvalidError as error:
        raise UsageError(f"invalid seccomp profile {name!r}: {error}") from None


def unknown_names(content: bytes, *, bounding: frozenset[str], name: str) -> tuple[str, ...]:
    """The names in the profile's rules for this machine that are no system calls of it. Raises UsageError."""
    profile = from_json(content, bounding=bounding, release=os.uname().release, name=name)
    return kernel.unknown_names({call for rule in profile.rules for call in rule.names})


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        message = error.msg[:1].lower() + error.msg[1:]
        _fail(f"it is not JSON: {message} in line {error.lineno}, column {error.colno}")
    except UnicodeDecodeError:
        _fail("it is not JSON: it is not UTF-8")
    except (ValueError, RecursionError):
        _fail("it is not JSON that can be read: a number is too long, or it is nested too deeply")


def _entry_rules(entry: Mapping[str, Any]) -> Iterator[kernel.Rule]:
    action = _action(entry.get("action"), entry.get("errnoRet"))
    comparisons = [_comparison(value) for value in _list(entry.get("args"), "args")]
    for name in _names(entry):
        narrow = _NARROW.get(name, frozenset())
        if len({comparison.argument for comparison in comparisons}) == len(comparisons):
            groups = [comparisons]
        else:
            groups = [[comparison] for comparison in comparisons]
        for group in groups:
            choices = [_low_bits(c) if c.argument in narrow else [c] for c in group]
            for count, chosen in enumerate(itertools.product(*choices)):
                if count == _MAX_RULES:
                    _fail(f"the comparisons of {name} make too many rules")
                yield kernel.Rule(action, (name,), chosen)


def _names(entry: Mapping[str, Any]) -> list[str]:
    names = _texts(entry.get("names"), "names")
    name = entry.get("name") or ""
    if name and names:
        _fail("an entry has both 'name' and 'names'")
    if not isinstance(name, str):
        _fail(f"the name of a system call is {name!r}")
    names = names or ([name] if name else [])
    if not names:
        _fail("an entry of syscalls has no names")
    return names


def _comparison(value: Any) -> kernel.Comparison:
    arg = _object(value, "an entry of args")
    op = arg.get("op")
    if not isinstance(op, str) or op not in _OPERATORS:
        _fail(f"unknown operator {op!r}")
    index = _number(arg.get("index", 0), "index", 5)
    first = _number(arg.get("value", 0), "value", 2**64 - 1)
    return kernel.Comparison(index, _OPERATORS[op], first, _number(arg.get("valueTwo") or 0, "valueTwo", 2**64 - 1))


def _low_bits(comparison: kernel.Comparison) -> list[kernel.Comparison]:
    """Comparisons of the low 32 bits of an argument, of which one has to hold.

    libseccomp has only one comparison with a mask, for equality. A range of numbers is the union of at most 32 blocks
    that share their upper bits.
    """
    argument, op, value, two = comparison
    if op == kernel.MASKED_EQ:
        return [kernel.Comparison(argument, op, value & _LOW, two & _LOW)]
    if op == kernel.EQ:
        return [_block(argument, _LOW, value & _LOW)]
    if op == kernel.NE:
        value &= _LOW
        ranges = [(0, value), (value + 1, _LOW + 1)]
    elif op in (kernel.LT, kernel.LE):
        ranges = [(0, min(value + (op == kernel.LE), _LOW + 1))]
    else:
        ranges = [(min(value + (op == kernel.GT), _LOW + 1), _LOW + 1)]
    return [_block(argument, mask, start) for low, high in ranges for mask, start in _blocks(low, high)]


def _block(argument: int, mask: int, value: int) -> kernel.Comparison:
    return kernel.Comparison(argument, kernel.MASKED_EQ, mask, value)


def _blocks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The numbers from ``low`` to below ``high`` as (mask, value): the largest aligned powers of two."""
    while low < high:
        size = low & -low or _LOW + 1
        while size > high - low:
            size >>= 1
        yield ~(size - 1) & _LOW, low
        low += size


def _applies(entry: Mapping[str, Any], *, bounding: frozenset[str], machine: str, release: str) -> bool:
    included, excluded = (_condition(entry, key) for key in ("includes", "excludes"))
    arch_names = {machine, *(name for name, value in _MACHINES.items() if value == machine)}
    if arch_names & set(excluded.arches) or bounding & set(excluded.caps):
        return False
    if excluded.kernel and _release(release) >= excluded.kernel:
        return False
    if included.arches and not arch_names & set(included.arches):
        return False
    if not set(included.caps) <= bounding:
        return False
    return not (included.kernel and _release(release) < included.kernel)


class _Condition(NamedTuple):
    """An ``includes`` or ``excludes``; ``kernel`` is None where no release is named."""

    arches: list[str]
    caps: list[str]
    kernel: tuple[int, int] | None


def _condition(entry: Mapping[str, Any], key: str) -> _Condition:
    value = _object(entry.get(key) or {}, key)
    least = value.get("minKernel") or ""
    numbers = None
    if least:
        numbers = _release(least) if isinstance(least, str) else (0, 0)
        if numbers == (0, 0):
            _fail(f"minKernel is {least!r}, not a release such as 4.8")
    return _Condition(_texts(value.get("arches"), "arches"), _texts(value.get("caps"), "caps"), numbers)


def _architectures(profile: Mapping[str, Any], machine: str) -> tuple[str, ...]:
    entries = [_object(entry, "an entry of archMap") for entry in _list(profile.get("archMap"), "archMap")]
    named = _texts(profile.get("architectures"), "architectures")
    if entries and named:
        _fail("it has both 'architectures' and 'archMap'")
    for entry in entries:
        if _architecture(entry.get("architecture")) == machine:
            return (machine, *map(_architecture, _texts(entry.get("subArchitectures"), "subArchitectures")))
    return tuple(map(_architecture, named)) or (machine,)


def _architecture(name: Any) -> str:
    if not isinstance(name, str) or not name.startswith("SCMP_ARCH_"):
        _fail(f"unknown architecture {name!r}")
    return name.removeprefix("SCMP_ARCH_").lower()


def _action(name: Any, error_number: Any) -> int:
    number = errno.EPERM if error_number is None else _number(error_number, "an errnoRet", _MAX_ERRNO)
    if name == "SCMP_ACT_ERRNO":
        return kernel.error_action(number)
    if name == "SCMP_ACT_TRACE":
        return kernel.trace_action(number)
    if name == "SCMP_ACT_NOTIFY":
        _fail("SCMP_ACT_NOTIFY needs a listener, and minidock has none")
    if not isinstance(name, str) or name not in _ACTIONS:
        _fail(f"unknown action {name!r}")
    return _ACTIONS[name]


def _release(text: str) -> tuple[int, int]:
    """The first two numbers of a kernel release; (0, 0) for a text that does not begin with two."""
    numbers = []
    for part in text.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits[:9] or 0))
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _fail(f"{what} is not a JSON object")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        _fail(f"{what} is not a list")
    return value


def _texts(value: Any, what: str) -> list[str]:
    texts = _list(value, what)
    for text in texts:
        if not isinstance(text, str):
            _fail(f"{text!r} in {what} is not a text")
    return texts


def _number(value: Any, what: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        _fail(f"{what} is {str(value)[:40]!r}, not a number from 0 to {most}")
    return value


def _fail(reason: str) -> NoReturn:
    raise _InvalidError(reason)
