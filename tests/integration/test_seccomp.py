"""Filters and capabilities on the real kernel, each in a child of its own."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from minidock.kernel import caps, process
from minidock.kernel import seccomp as kernel
from minidock.kernel.syscall import SYS_CLONE3, SYS_KEYCTL, SYS_PRCTL, SYS_UNSHARE, syscall
from minidock.runtime import seccomp

_DEFAULT = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE"
)
DEFAULT = frozenset(f"CAP_{name}" for name in _DEFAULT.split())
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def in_child(body: Callable[[], str]) -> str:
    """What ``body`` returns in a forked child; its exception's text if it raises."""
    out, into = os.pipe()

    def child() -> None:
        try:
            answer = body()
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(into, answer.encode())

    with process.spawn(child) as born:
        os.close(into)
        with open(out) as file:
            answer = file.read()
        assert born.wait() == 0
    return answer


def outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    compiled = seccomp.program(profile="builtin", bounding=DEFAULT, cache_dir=str(tmp_path_factory.mktemp("cache")))
    assert compiled
    return compiled


def test_default_filter_holds(program: bytes) -> None:
    arguments = ctypes.create_string_buffer(88)

    def body() -> str:
        kernel.load(program)
        return " ".join(
            (
                outcome(lambda: syscall(SYS_UNSHARE, CLONE_NEWNS)),
                outcome(lambda: syscall(SYS_UNSHARE, CLONE_NEWUSER)),
                outcome(lambda: syscall(SYS_CLONE3, arguments, 88)),
                outcome(lambda: syscall(SYS_KEYCTL, 0, 0, 0)),
                outcome(lambda: os.sethostname("x") if hasattr(os, "sethostname") else socket.sethostname("x")),
                outcome(lambda: socket.socket(38, socket.SOCK_SEQPACKET)),
                outcome(lambda: socket.socket(40, socket.SOCK_STREAM)),
                outcome(lambda: socket.socket().close()),
                outcome(lambda: os.waitpid(os.fork() or os._exit(0), 0)),
                outcome(lambda: os.chroot("/")),
                outcome(lambda: os.close(os.memfd_create("x"))),
            )
        )

    assert in_child(body) == "EPERM EPERM ENOSYS EPERM EPERM EPERM EPERM ok ok ok ok"


def test_filter_is_seen_in_proc_and_lasts_over_exec(program: bytes) -> None:
    def body() -> str:
        kernel.load(program)
        with open("/proc/self/status") as file:
            mode = next(line.split()[1] for line in file if line.startswith("Seccomp:"))
        return f"{mode} {os.spawnv(os.P_WAIT, '/usr/bin/unshare', ['unshare', '-m', 'true']) != 0}"

    assert in_child(body) == "2 True"


def test_speculation_is_left_as_it_is(program: bytes) -> None:
    """Without the flag, kernels before 5.16 slowed every filtered process down."""

    def body() -> str:
        before = syscall(SYS_PRCTL, 52, 0, 0, 0, 0)
        kernel.load(program)
        return str(before == syscall(SYS_PRCTL, 52, 0, 0, 0, 0))

    assert in_child(body) == "True"


def test_load_without_privilege_needs_no_new_privs(program: bytes) -> None:
    def refused() -> str:
        os.setuid(65534)
        return outcome(lambda: kernel.load(program))

    def accepted() -> str:
        os.setuid(65534)
        process.set_no_new_privs()
        return outcome(lambda: kernel.load(program))

    assert in_child(refused) == "EACCES"
    assert in_child(accepted) == "ok"


@pytest.mark.parametrize("code", [b"", b"1234567", bytes(8)])
def test_what_is_no_program_is_refused(code: bytes) -> None:
    assert in_child(lambda: outcome(lambda: kernel.load(code))) == "EINVAL"


def test_capabilities_are_exactly_what_was_asked() -> None:
    def body() -> str:
        caps.preload()
        caps.apply(bounding=DEFAULT, effective=DEFAULT, permitted=DEFAULT)
        return "".join(
            line for line in Path("/proc/self/status").read_text().splitlines(True) if line.startswith("Cap")
        )

    assert [line.split()[1][-8:] for line in in_child(body).splitlines()] == [
        "00000000",
        "a80425fb",
        "a80425fb",
        "a80425fb",
        "00000000",
    ]


def test_capabilities_may_be_none_and_cannot_come_back() -> None:
    nothing: frozenset[str] = frozenset()

    def body() -> str:
        caps.preload()
        caps.apply(bounding=nothing, effective=nothing, permitted=nothing)
        first = f"{len(caps.bounding_set())} {len(caps.effective_set())} {outcome(lambda: os.chown('/', 0, 0))}"
        return f"{first} {outcome(lambda: caps.limit_bounding(DEFAULT))}"

    assert in_child(body).split()[:2] == ["0", "0"]
    assert in_child(body).split()[3] == "EPERM"


def test_newest_capability_is_set_by_number() -> None:
    """python-prctl has no name for CAP_CHECKPOINT_RESTORE."""
    one = frozenset({"CAP_CHECKPOINT_RESTORE"})

    def body() -> str:
        caps.preload()
        caps.apply(bounding=one, effective=one, permitted=one)
        return " ".join(sorted(caps.bounding_set() | caps.effective_set()))

    if "CAP_CHECKPOINT_RESTORE" not in caps.bounding_set():
        pytest.skip("this process may not have CAP_CHECKPOINT_RESTORE")
    assert in_child(body) == "CAP_CHECKPOINT_RESTORE"


def test_an_effective_set_that_was_lowered_is_back_after_an_exec_by_root() -> None:
    def body() -> str:
        caps.preload()
        caps.apply(bounding=DEFAULT, effective=DEFAULT, permitted=DEFAULT)
        caps.lower_effective(frozenset({"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}))
        lines = Path("/proc/self/status").read_text().splitlines() + capability_lines_after_exec()
        return " ".join(line.split()[1][-8:] for line in lines if line.startswith(("CapPrm", "CapEff")))

    assert in_child(body).split() == ["a80425fb", "a80425f9", "a80425fb", "a80425fb"]


def capability_lines_after_exec() -> list[str]:
    out, into = os.pipe()
    os.dup2(into, 7, inheritable=True)
    os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", "cat /proc/self/status >&7"])
    os.close(into)
    os.close(7)
    with open(out) as file:
        return file.read().splitlines()


def test_ambient_capabilities_reach_an_unprivileged_program() -> None:
    one = frozenset({"CAP_NET_BIND_SERVICE"})

    def body() -> str:
        caps.preload()
        caps.limit_bounding(DEFAULT)
        caps.keep_over_setuid(True)
        os.setuid(65534)
        caps.set_sets(effective=one, permitted=one, inheritable=one, ambient=one)
        out, into = os.pipe()
        os.dup2(into, 7, inheritable=True)
        os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", "grep CapEff /proc/self/status >&7"])
        os.close(into)
        os.close(7)
        with open(out) as file:
            return file.read().split()[1]

    assert int(in_child(body), 16) == caps.mask(one)
