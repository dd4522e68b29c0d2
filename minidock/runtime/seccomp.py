"""Which system calls a container may make: a profile turned into a program for the kernel, kept in a cache.

Profiles are "builtin" (``seccomp_default``), "unconfined" (no filter) or the path of a file in docker's JSON form
(``seccomp_profile``). Compiling takes some 50 ms, a cached program a tenth of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from _blake2 import blake2b

from minidock.errors import UsageError
from minidock.kernel import seccomp as kernel

BUILTIN = "builtin"
UNCONFINED = "unconfined"

_MAGIC = b"minidock seccomp 2\n"
_DIGEST_BYTES = 32
_SOURCES = ("seccomp.py", "seccomp_default.py", "../kernel/seccomp.py")
_PROFILE_SOURCE = "seccomp_profile.py"

_Filter = tuple[int, "list[kernel.Rule]", "tuple[str, ...]"]


def program(*, profile: str, bounding: frozenset[str], cache_dir: str, content: bytes | None = None) -> bytes | None:
    """The filter program for ``profile`` and a container whose bounding set is ``bounding``; None for "unconfined".

    ``content`` is what the profile's file holds, for a caller that has read it. ``cache_dir`` is made (0700) if it is
    missing; a cached program is used only if it is whole, a regular file, of the caller's own user and closed to
    others. Raises UsageError for a profile that cannot be read or makes no sense.
    """
    if profile == UNCONFINED:
        return None
    if profile in {BUILTIN, ""}:
        content = b""
    elif content is None:
        from minidock.runtime.seccomp_profile import read_profile

        content = read_profile(profile)
    path = f"{cache_dir}/{_key(content, bounding)}"
    cached = _cached(path)
    if cached is not None:
        return cached
    release = os.uname().release
    if content:
        from minidock.runtime.seccomp_profile import from_json

        action, rules, archs = from_json(content, bounding=bounding, release=release, name=profile)
    else:
        action, rules, archs = builtin(bounding, release=release)
    try:
        compiled = kernel.compile_filter(action, rules, archs)
    except (OSError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"seccomp profile {profile!r} cannot be compiled: {reason}") from None
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


def _release(text: str) -> tuple[int, int]:
    """The first two numbers of a kernel release; (0, 0) for a text that has none."""
    numbers = []
    for part in text.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits or 0))
    return (numbers[0], numbers[1] if len(numbers) > 1 else 0)


def _key(content: bytes, bounding: frozenset[str]) -> str:
    """What the program depends on: profile, capabilities, machine, kernel, library and the code that compiles."""
    system = os.uname()
    digest = _hash(content)
    for text in (",".join(sorted(bounding)), system.machine, system.release, kernel.library_mark()):
        digest.update(f"\0{text}".encode())
    folder = os.path.dirname(__file__)
    for name in (*_SOURCES, _PROFILE_SOURCE) if content else _SOURCES:
        with open(f"{folder}/{name}", "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def _hash(content: bytes) -> blake2b:
    # From its own module: hashlib loads OpenSSL, which costs a start 2 ms.
    return blake2b(content, digest_size=_DIGEST_BYTES)


def _cached(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0, opener=_open_cached) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
                return None
            content = file.read()
    except OSError:
        return None
    if not content.startswith(_MAGIC):
        return None
    digest, code = content[len(_MAGIC) :][:_DIGEST_BYTES], content[len(_MAGIC) + _DIGEST_BYTES :]
    return code if code and _hash(code).digest() == digest else None


def _open_cached(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


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
