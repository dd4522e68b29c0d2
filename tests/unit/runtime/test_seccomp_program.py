"""Compiled filters, run by a small interpreter of classic BPF: what each call of each architecture would get."""

from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import UsageError
from minidock.kernel import seccomp as kernel
from minidock.runtime import seccomp, seccomp_profile
from minidock.runtime import seccomp_default as data

pytest.importorskip("pyseccomp", exc_type=ImportError)
if os.uname().machine != "x86_64":
    pytest.skip("the numbers below are x86_64's", allow_module_level=True)

X86_64, X86, ARM = 0xC000003E, 0x40000003, 0x40000028
X32_BIT = 0x40000000
ALLOW, EPERM, ENOSYS = kernel.ALLOW, kernel.error_action(errno.EPERM), kernel.error_action(errno.ENOSYS)
_DEFAULT = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE"
)
DOCKER = frozenset(f"CAP_{name}" for name in _DEFAULT.split())
RELEASE = "6.1.0-18-amd64"
SYS = {
    "read": 0,
    "socket": 41,
    "clone": 56,
    "ptrace": 101,
    "personality": 135,
    "pivot_root": 155,
    "chroot": 161,
    "mount": 165,
    "swapon": 167,
    "reboot": 169,
    "add_key": 248,
    "keyctl": 250,
    "mbind": 237,
    "unshare": 272,
    "open_by_handle_at": 304,
    "setns": 308,
    "bpf": 321,
    "userfaultfd": 323,
    "memfd_create": 319,
    "io_uring_setup": 425,
    "clone3": 435,
    "openat2": 437,
    "fchmodat2": 452,
    "lsm_set_self_attr": 460,
    "open_tree_attr": 467,
}
# Everything in the table but what is allowed, and clone, personality and socket, whose arguments decide.
REFUSED = sorted(
    SYS.keys()
    - {"read", "ptrace", "chroot", "memfd_create", "openat2", "fchmodat2"}
    - {"clone", "clone3", "personality", "socket"}
)


def run(program: bytes, number: int, *arguments: int, arch: int = X86_64) -> int:
    """The action for one call: the instructions of seccomp(2), 32 bits wide."""
    words = struct.pack("<iIQ6Q", number - (number >> 31 << 32), arch, 0, *(arguments + (0,) * 6)[:6])
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator = position = 0
    while True:
        opcode, on_true, on_false, value = instructions[position]
        position += 1
        if opcode == 0x20:
            accumulator = struct.unpack_from("<I", words, value)[0]
        elif opcode == 0x54:
            accumulator &= value
        elif opcode == 0x05:
            position += value
        elif opcode == 0x15:
            position += on_true if accumulator == value else on_false
        elif opcode == 0x25:
            position += on_true if accumulator > value else on_false
        elif opcode == 0x35:
            position += on_true if accumulator >= value else on_false
        elif opcode == 0x45:
            position += on_true if accumulator & value else on_false
        elif opcode == 0x06:
            return int(value)
        else:
            pytest.fail(f"unexpected opcode {opcode:#x}")


@pytest.fixture(scope="module")
def default() -> bytes:
    return kernel.compile_filter(*seccomp.builtin(DOCKER, release=RELEASE))


def with_capability(*names: str) -> bytes:
    return kernel.compile_filter(*seccomp.builtin(DOCKER | set(names), release=RELEASE))


def test_the_list_is_as_long_as_docker_s() -> None:
    names = data.ALWAYS.split()
    assert len(names) == len(set(names)) == 361
    conditional = {name for group in data.BY_CAPABILITY.values() for name in group.split()}
    assert not conditional & set(names)
    assert not {"personality", "socket", "clone", "clone3"} & set(names)


@pytest.mark.parametrize("name", ["read", "ptrace", "chroot", "memfd_create", "openat2"])
def test_allowed_by_default(default: bytes, name: str) -> None:
    assert run(default, SYS[name]) == ALLOW


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_default(default: bytes, name: str) -> None:
    assert run(default, SYS[name]) == EPERM


def test_clone_makes_no_namespace(default: bytes) -> None:
    assert run(default, SYS["clone"], 0x01200011) == ALLOW
    for bit in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert run(default, SYS["clone"], bit | 17) == EPERM


def test_clone3_seems_not_to_exist(default: bytes) -> None:
    assert run(default, SYS["clone3"]) == ENOSYS
    assert run(default, SYS["clone3"], arch=X86) == ENOSYS


def test_personalities(default: bytes) -> None:
    for allowed in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert run(default, SYS["personality"], allowed) == ALLOW
    for refused in (0x40000, 1, 0x0400000, 0xFFFFFFFF << 32):
        assert run(default, SYS["personality"], refused) == EPERM


def test_socket_families_by_their_low_32_bits(default: bytes) -> None:
    for family in range(64):
        expected = EPERM if family in {38, 40} else ALLOW
        for high in (0, 1 << 32, 0xFFFFFFFF << 32):
            assert run(default, SYS["socket"], family | high) == expected, family


@pytest.mark.parametrize(
    ("capability", "calls"),
    [
        ("CAP_SYS_ADMIN", ["unshare", "mount", "setns", "bpf", "clone3", "lsm_set_self_attr"]),
        ("CAP_DAC_READ_SEARCH", ["open_by_handle_at"]),
        ("CAP_SYS_BOOT", ["reboot"]),
        ("CAP_SYS_NICE", ["mbind"]),
        ("CAP_BPF", ["bpf"]),
    ],
)
def test_capabilities_open_calls(default: bytes, capability: str, calls: list[str]) -> None:
    program = with_capability(capability)
    for call in calls:
        assert run(default, SYS[call]) != ALLOW
        assert run(program, SYS[call]) == ALLOW
    assert run(program, SYS["keyctl"]) == EPERM


def test_clone_is_free_with_sys_admin() -> None:
    assert run(with_capability("CAP_SYS_ADMIN"), SYS["clone"], 0x10000000) == ALLOW


def test_without_chroot_capability() -> None:
    program = kernel.compile_filter(*seccomp.builtin(frozenset(), release=RELEASE))
    assert run(program, SYS["chroot"]) == EPERM


def test_old_kernels_get_no_ptrace() -> None:
    program = kernel.compile_filter(*seccomp.builtin(DOCKER, release="4.4.0-21-generic"))
    assert run(program, SYS["ptrace"]) == EPERM
    assert run(program, SYS["read"]) == ALLOW


def test_other_architectures(default: bytes) -> None:
    assert run(default, 3, arch=X86) == ALLOW, "read on i386"
    assert run(default, 21, arch=X86) == EPERM, "mount on i386"
    assert run(default, 359, 38, arch=X86) == EPERM, "socket(AF_ALG) on i386"
    assert run(default, 359, 2, arch=X86) == ALLOW
    assert run(default, X32_BIT | 0) == ALLOW, "read on x32"
    assert run(default, X32_BIT | 272) == EPERM, "unshare on x32"
    assert run(default, 0, arch=ARM) in {kernel.KILL_THREAD, kernel.KILL_PROCESS}


def test_calls_newer_than_libseccomp(default: bytes) -> None:
    for arch, bit in ((X86_64, 0), (X86, 0), (X86_64, X32_BIT)):
        assert run(default, bit | SYS["fchmodat2"], arch=arch) == ALLOW
        assert run(default, bit | SYS["open_tree_attr"], arch=arch) == EPERM
        assert run(default, bit | 470, arch=arch) == ENOSYS
        assert run(default, bit | 4000, arch=arch) == ENOSYS
    assert run(default, 0, arch=ARM) != ALLOW
    assert run(default, SYS["fchmodat2"], arch=ARM) != ALLOW


def test_calls_that_only_x32_has(default: bytes) -> None:
    """Their numbers, 512 to 547, lie above all that any machine has."""
    for call in (512, 514, 520, 547):
        assert run(default, X32_BIT | call) == ALLOW, "rt_sigaction, ioctl, execve and pwritev2"
        assert run(default, call) == run(default, call, arch=X86) == ENOSYS
    assert run(default, X32_BIT | 528) == EPERM, "kexec_load"
    assert run(default, X32_BIT | 511) == run(default, X32_BIT | 548) == ENOSYS


def test_without_x32_its_calls_are_killed() -> None:
    program = kernel.compile_filter(EPERM, [kernel.Rule(ALLOW, ("read", "cachestat"))], ("x86_64",))
    assert run(program, 0) == ALLOW
    assert run(program, 451) == ALLOW
    for number in (0, 451, 470):
        assert run(program, X32_BIT | number) in {kernel.KILL_THREAD, kernel.KILL_PROCESS}


def test_beyond_the_newest_the_default_stays_if_it_is_no_errno() -> None:
    program = kernel.compile_filter(ALLOW, [kernel.Rule(EPERM, ("mount",))], ("x86_64",))
    assert run(program, 4000) == ALLOW
    assert run(program, SYS["mount"]) == EPERM


def test_tree_and_chain_agree(default: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """libseccomp's binary tree, three times as fast to load, decides as its plain chain does."""
    monkeypatch.setattr(kernel, "_BINARY_TREE", 1)
    chain = kernel.compile_filter(*seccomp.builtin(DOCKER, release=RELEASE))
    assert chain != default
    for arch in (X86_64, X86):
        for number in (*range(480), *range(X32_BIT, X32_BIT + 560)):
            assert run(default, number, 38, arch=arch) == run(chain, number, 38, arch=arch), (hex(arch), number)
            assert run(default, number, 0, arch=arch) == run(chain, number, 0, arch=arch), (hex(arch), number)


def test_cache(tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "seccomp"
    first = seccomp.program(profile="builtin", bounding=DOCKER, cache_dir=str(cache))
    assert first is not None
    (entry,) = cache.iterdir()
    assert entry.stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700
    compiled = kernel.compile_filter
    kernel.compile_filter = None  # type: ignore[assignment]
    try:
        assert seccomp.program(profile="builtin", bounding=DOCKER, cache_dir=str(cache)) == first
    finally:
        kernel.compile_filter = compiled
    seccomp.program(profile="builtin", bounding=DOCKER - {"CAP_MKNOD"}, cache_dir=str(cache))
    assert len(list(cache.iterdir())) == 2, "the bounding set is part of the key"


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "open to others", "link"])
def test_cache_distrusts(tmp_path: Path, damage: str) -> None:
    program = seccomp.program(profile="builtin", bounding=DOCKER, cache_dir=str(tmp_path))
    (entry,) = tmp_path.iterdir()
    content = entry.read_bytes()
    if damage == "cut":
        entry.write_bytes(content[:-8])
    elif damage == "changed":
        entry.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "empty":
        entry.write_bytes(b"")
    elif damage == "open to others":
        entry.write_bytes(content[: -len(program or b"") - 32])
        entry.chmod(0o666)
    else:
        entry.rename(tmp_path / "elsewhere")
        entry.symlink_to(tmp_path / "elsewhere")
    assert seccomp._cached(str(entry)) is None
    assert seccomp.program(profile="builtin", bounding=DOCKER, cache_dir=str(tmp_path)) == program
    assert entry.read_bytes() == content, "it was made anew"


def test_a_directory_in_the_cache_is_no_error(tmp_path: Path) -> None:
    program = seccomp.program(profile="builtin", bounding=DOCKER, cache_dir=str(tmp_path))
    (entry,) = tmp_path.iterdir()
    entry.unlink()
    entry.mkdir()
    assert seccomp.program(profile="builtin", bounding=DOCKER, cache_dir=str(tmp_path)) == program


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert seccomp.program(profile="builtin", bounding=DOCKER, cache_dir=str(tmp_path / "file"))


def test_unconfined_is_no_program(tmp_path: Path) -> None:
    assert seccomp.program(profile="unconfined", bounding=DOCKER, cache_dir=str(tmp_path)) is None


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_unreadable_profile(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot read the seccomp profile"):
        seccomp.program(profile=str(tmp_path / name), bounding=DOCKER, cache_dir=str(tmp_path))


SOCKETCALL = 102
FAMILIES = [
    {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": f"SCMP_CMP_{op}"}]}
    for value, op in ((38, "LT"), (39, "EQ"), (40, "GT"))
]
ALL_X86 = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}]


def compiled(*entries: dict[str, Any], default: str = "SCMP_ACT_ERRNO") -> bytes:
    content = json.dumps({"defaultAction": default, "archMap": ALL_X86, "syscalls": list(entries)}).encode()
    return kernel.compile_filter(*seccomp_profile.from_json(content, bounding=DOCKER, release=RELEASE, name="p"))


def test_docker_s_rule_of_families_holds_for_what_the_kernel_sees() -> None:
    program = compiled(*FAMILIES)
    for family in (0, 1, 2, 16, 37, 39, 41, 44, 63, 64, 2**31, 2**32 - 1):
        for above in (0, 1 << 32, 0xFFFFFFFF << 32):
            assert run(program, SYS["socket"], family | above) == ALLOW
    for family in (38, 40):
        for above in (0, 1 << 32, 0xFFFFFFFF << 32):
            assert run(program, SYS["socket"], family | above) == EPERM
        assert run(program, 359, family, arch=X86) == EPERM
        assert run(program, X32_BIT | SYS["socket"], family) == EPERM


@pytest.mark.parametrize(
    ("further", "expected"),
    [
        ((), {1: EPERM, 2: EPERM}),
        (({"names": ["bind"], "action": "SCMP_ACT_ALLOW"},), {1: EPERM, 2: ALLOW}),
        (({"names": ["socketcall"], "action": "SCMP_ACT_ALLOW"},), {1: ALLOW, 2: ALLOW}),
        (({"names": ["socketcall", "bind"], "action": "SCMP_ACT_ERRNO"},), {1: EPERM, 2: EPERM}),
        (({"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},), {1: ENOSYS, 2: ENOSYS}),
        (({"names": ["socket"], "action": "SCMP_ACT_ALLOW"},), {1: ALLOW, 2: EPERM}),
    ],
)
def test_socketcall_opens_nothing_that_was_not_asked_for(
    further: tuple[dict[str, Any], ...], expected: dict[int, int]
) -> None:
    """i386's families lie behind a pointer: what is allowed by family alone is not allowed there (containerd#13330)."""
    program = compiled(*FAMILIES, *further)
    assert {number: run(program, SOCKETCALL, number, arch=X86) for number in expected} == expected
    assert run(program, SOCKETCALL) == EPERM, "102 of x86_64 is getuid"
    assert run(program, 359, 2, arch=X86) == ALLOW


def test_a_bind_by_arguments_is_closed_too() -> None:
    bind = {"names": ["bind"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}]}
    program = compiled({"names": ["socket"], "action": "SCMP_ACT_ALLOW"}, bind)
    assert [run(program, SOCKETCALL, number, arch=X86) for number in (1, 2, 3)] == [ALLOW, EPERM, EPERM]


def test_where_everything_else_is_allowed_socketcall_is_refused_as_a_whole() -> None:
    denied = {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]}
    program = compiled(denied, default="SCMP_ACT_ALLOW")
    assert run(program, SOCKETCALL, 1, arch=X86) == EPERM
    assert run(program, SOCKETCALL, 2, arch=X86) == ALLOW
    assert run(program, SYS["socket"], 38 | 1 << 32) == EPERM
    assert run(program, SYS["socket"], 2) == ALLOW


@pytest.mark.parametrize("capability", [None, "CAP_SYS_ADMIN"])
def test_a_profile_as_it_is_in_the_world(capability: str | None) -> None:
    """podman's, in docker's form, decides as its own text says."""
    path = Path("/usr/share/containers/seccomp.json")
    if not path.exists():
        pytest.skip("podman's profile is not installed here")
    bounding = DOCKER | ({capability} if capability else set())
    read = seccomp_profile.from_json(path.read_bytes(), bounding=bounding, release=RELEASE, name="p")
    program = kernel.compile_filter(*read)
    assert run(program, SYS["read"]) == ALLOW
    assert run(program, SYS["bpf"]) == (ALLOW if capability else EPERM)
    assert run(program, SYS["keyctl"]) == ALLOW
    assert run(program, SYS["userfaultfd"]) == EPERM
    assert run(program, 4000) == ENOSYS


def test_rules_may_be_said_twice() -> None:
    twice = {"names": ["mount", "mount"], "action": "SCMP_ACT_ALLOW"}
    program = compiled(twice, twice, *FAMILIES, *FAMILIES)
    assert run(program, SYS["mount"]) == ALLOW
    assert run(program, SYS["socket"], 39) == ALLOW
