"""Which system calls a container may make: a profile turned into a program for the kernel, kept in a cache.

Profiles are "builtin" (``seccomp_default``), "unconfined" (no filter) or the path of a file in docker's JSON form.
Compiling takes some 50 ms, a cached program a tenth of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from _blake2 import blake2b
from typing import TYPE_CHECKING, Any

from minidock.errors import UsageError
from minidock.kernel import seccomp as kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BUILTIN = "builtin"
UNCONFINED = "unconfined"

_MAGIC = b"minidock seccomp 2\n"
_DIGEST_BYTES = 32
_MAX_PROFILE = 4 << 20
_SOURCES = ("seccomp.py", "seccomp_default.py", "../kernel/seccomp.py")

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

_Filter = tuple[int, "list[kernel.Rule]", "tuple[str, ...]"]


def program(*, profile: str, bounding: frozenset[str], cache_dir: str) -> bytes | None:
    """The filter program for ``profile`` and a container whose bounding set is ``bounding``; None for "unconfined".

    ``cache_dir`` is made (0700) if it is missing; a cached program is used only if it is whole, a regular file, of the
    caller's own user and closed to others. Raises UsageError for a profile that cannot be read or makes no sense.
    """
    if profile == UNCONFINED:
        return None
    content = b"" if profile in {BUILTIN, ""} else _read_profile(profile)
    path = f"{cache_dir}/{_key(content, bounding)}"
    cached = _cached(path)
    if cached is not None:
        return cached
    release = os.uname().release
    if content:
        action, rules, archs = from_json(content, bounding=bounding, release=release, name=profile)
    else:
        action, rules, archs = builtin(bounding, release=release)
    try:
        compiled = kernel.compile_filter(action, rules, archs)
    except (OSError, AttributeError) as error:
        raise UsageError(f"seccomp profile {profile!r} cannot be compiled: {error}") from None
    with contextlib.suppress(OSError):
        _store(path, compiled)
    return compiled


def builtin(bounding: frozenset[str], *, machine: str = "", release: str = "") -> _Filter:
    """The default profile as (default action, rules, architectures) for ``machine`` and kernel ``release``."""
    from minidock.runtime import seccomp_default as data

    machine = machine or os.uname().machine

    def allow(names: str, *comparisons: kernel.Comparison) -> kernel.Rule:
        return kernel.Rule(kernel.ALLOW, tuple(names.split()), comparisons)

    def matching(mask: int, value: int) -> kernel.Comparison:
        return kernel.Comparison(0, kernel.MASKED_EQ, mask, value)

    rules = [allow(data.ALWAYS), allow(data.BY_MACHINE.get(machine, ""))]
    if _release(release or os.uname().release) >= (4, 8):
        rules.append(allow(data.TRACING))
    rules += [allow("personality", kernel.Comparison(0, kernel.EQ, value)) for value in data.PERSONALITIES]
    rules += [allow("socket", matching(mask, value)) for mask, value in data.SOCKET_FAMILIES]
    rules += [allow(names) for name, names in data.BY_CAPABILITY.items() if name in bounding]
    if "CAP_SYS_ADMIN" not in bounding:
        rules.append(allow("clone", matching(data.CLONE_NAMESPACES, 0)))
        # glibc falls back to clone only when the kernel seems not to have clone3, whose flags a filter cannot see.
        rules.append(kernel.Rule(kernel.error_action(errno.ENOSYS), ("clone3",)))
    return kernel.error_action(errno.EPERM), rules, data.ARCHITECTURES.get(machine, (machine,))


def from_json(content: bytes, *, bounding: frozenset[str], release: str, name: str, machine: str = "") -> _Filter:
    """Read a profile of docker's JSON form (or the OCI runtime spec's) for this machine. Raises UsageError.

    Comparisons of one rule hold together, but several on one argument are taken one by one, as runc does, because
    libseccomp cannot join them.
    """
    import json

    machine = machine or os.uname().machine
    try:
        profile = json.loads(content)
        action = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        rules: list[kernel.Rule] = []
        for entry in profile.get("syscalls") or ():
            if _applies(entry, bounding=bounding, machine=machine, release=release):
                rules += _entry_rules(entry)
        return action, rules, _architectures(profile, machine)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"invalid seccomp profile {name!r}: {reason}") from None


def _entry_rules(entry: Mapping[str, Any]) -> Iterator[kernel.Rule]:
    action = _action(entry["action"], entry.get("errnoRet"))
    names = entry.get("names") or [entry["name"]]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("the name of a system call is not a string")
    comparisons = [
        kernel.Comparison(int(arg["index"]), _OPERATORS[arg["op"]], int(arg["value"]), int(arg.get("valueTwo") or 0))
        for arg in entry.get("args") or ()
    ]
    if len({comparison.argument for comparison in comparisons}) == len(comparisons):
        yield kernel.Rule(action, tuple(names), tuple(comparisons))
    else:
        for comparison in comparisons:
            yield kernel.Rule(action, tuple(names), (comparison,))


def _applies(entry: Mapping[str, Any], *, bounding: frozenset[str], machine: str, release: str) -> bool:
    included, excluded = entry.get("includes") or {}, entry.get("excludes") or {}
    arch_names = {machine, *(name for name, value in _MACHINES.items() if value == machine)}
    if excluded.get("arches") and arch_names & set(excluded["arches"]):
        return False
    if excluded.get("caps") and bounding & set(excluded["caps"]):
        return False
    if excluded.get("minKernel") and _release(release) >= _release(excluded["minKernel"]):
        return False
    if included.get("arches") and not arch_names & set(included["arches"]):
        return False
    if included.get("caps") and not set(included["caps"]) <= bounding:
        return False
    return not (included.get("minKernel") and _release(release) < _release(included["minKernel"]))


def _architectures(profile: Mapping[str, Any], machine: str) -> tuple[str, ...]:
    for entry in profile.get("archMap") or ():
        if _architecture(entry["architecture"]) == machine:
            return (machine, *(_architecture(name) for name in entry.get("subArchitectures") or ()))
    named = tuple(_architecture(name) for name in profile.get("architectures") or ())
    return named or (machine,)


def _architecture(name: str) -> str:
    return name.removeprefix("SCMP_ARCH_").lower()


def _action(name: str, error_number: int | None) -> int:
    if name == "SCMP_ACT_ERRNO":
        return kernel.error_action(errno.EPERM if error_number is None else error_number)
    if name == "SCMP_ACT_TRACE":
        return kernel.trace_action(errno.EPERM if error_number is None else error_number)
    if name not in _ACTIONS:
        raise ValueError(f"unknown action {name!r}")
    return _ACTIONS[name]


def _release(text: str) -> tuple[int, int]:
    """The first two numbers of a kernel release; (0, 0) for a text that has none."""
    numbers = []
    for part in text.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits or 0))
    return (numbers[0], numbers[1] if len(numbers) > 1 else 0)


def _read_profile(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_PROFILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read the seccomp profile {path!r}: {error.strerror}") from None
    if not content or len(content) > _MAX_PROFILE:
        raise UsageError(f"the seccomp profile {path!r} is empty or larger than {_MAX_PROFILE >> 20} MiB")
    return content


def _key(content: bytes, bounding: frozenset[str]) -> str:
    """What the program depends on: profile, capabilities, machine, kernel, library and the code that compiles."""
    system = os.uname()
    digest = _hash(content)
    for text in (",".join(sorted(bounding)), system.machine, system.release, kernel.library_mark()):
        digest.update(f"\0{text}".encode())
    folder = os.path.dirname(__file__)
    for name in _SOURCES:
        with open(f"{folder}/{name}", "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def _hash(content: bytes) -> blake2b:
    # From its own module: hashlib loads OpenSSL, which costs a start 2 ms.
    return blake2b(content, digest_size=_DIGEST_BYTES)


def _cached(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            return None
        content = file.read()
    if not content.startswith(_MAGIC):
        return None
    digest, code = content[len(_MAGIC) :][:_DIGEST_BYTES], content[len(_MAGIC) + _DIGEST_BYTES :]
    return code if code and _hash(code).digest() == digest else None


def _store(path: str, code: bytes) -> None:
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(_MAGIC + _hash(code).digest() + code)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
