"""Children, their ends, failure reports, descriptors, limits: all that needs no root."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable

import pytest

from minidock.kernel import process
from minidock.kernel.process import Failure


def result_of(function: Callable[[], object]) -> object:
    """What ``function`` returns in a child, as JSON."""
    reader, writer = os.pipe2(os.O_CLOEXEC)

    def child() -> None:
        os.write(writer, json.dumps(function()).encode())

    with process.spawn(child) as spawned, os.fdopen(reader, "rb") as stream:
        os.close(writer)
        data = stream.read()
        assert spawned.wait() == 0
    return json.loads(data)


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (7, 7), (True, 1), (256 + 5, 5)])
def test_result_is_the_exit_status(result: int | None, code: int) -> None:
    with process.spawn(lambda: result) as child:
        assert child.pid > 0
        assert child.wait() == code


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit("text"), SystemExit(1)])
def test_exception_ends_the_child_with_1(error: BaseException, capfd: pytest.CaptureFixture[str]) -> None:
    def child() -> int:
        raise error

    with process.spawn(child) as spawned:
        assert spawned.wait() == 1
    assert capfd.readouterr() == ("", "")


def test_system_exit_keeps_its_status() -> None:
    def child() -> int:
        raise SystemExit(9)

    with process.spawn(child) as spawned:
        assert spawned.wait() == 9


def test_result_of_a_wrong_type_never_comes_back_as_a_second_parent() -> None:
    before = os.getpid()
    with process.spawn(lambda: "nonsense") as spawned:  # type: ignore[arg-type, return-value]
        assert spawned.wait() == 1
    assert os.getpid() == before


def test_signal_death_is_negative() -> None:
    with process.spawn(signal.pause) as child:
        process.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def test_wait_without_blocking() -> None:
    with process.spawn(signal.pause) as child:
        assert process.wait_pidfd(child.pidfd, block=False) is None
        process.pidfd_send_signal(child.pidfd, 0)
        process.pidfd_send_signal(child.pidfd, signal.SIGTERM)
        assert process.wait_pidfd(child.pidfd) == -signal.SIGTERM
        with pytest.raises(ChildProcessError):
            process.wait_pidfd(child.pidfd)
        with pytest.raises(ProcessLookupError):
            process.pidfd_send_signal(child.pidfd, 0)
        assert process.host_pid(child.pidfd) == 0


def test_pidfd_is_cloexec_and_closed_once() -> None:
    child = process.spawn(lambda: 0)
    assert not os.get_inheritable(child.pidfd)
    child.wait()
    child.close()
    child.close()
    assert child.pidfd == -1


def test_child_has_the_callers_signal_mask_and_so_has_the_caller() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        seen = result_of(lambda: sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        assert seen == [*sorted(before), signal.SIGUSR1]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {*before, signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_mask_is_restored_when_there_is_no_child() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(OSError, match="Invalid argument"):
        process.spawn(lambda: 0, flags=0x200 | 0x20000)  # CLONE_FS and CLONE_NEWNS exclude each other
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_children_of_a_threaded_parent_run_python() -> None:
    """The other threads are busy: they want the interpreter's lock while the child is made."""
    stop = threading.Event()
    threads = [threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert process.thread_count() == 5
        for _ in range(10):
            with process.spawn(lambda: len([str(n) for n in range(1000)]) % 251) as child:
                deadline = time.monotonic() + 10
                while (code := process.wait_pidfd(child.pidfd, block=False)) is None:
                    assert time.monotonic() < deadline, "the child hangs"
                    time.sleep(0.001)
                assert code == 1000 % 251
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_child_is_killed_when_a_signal_raises_while_it_is_born(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while all are blocked; nobody else could end the child, whose number the caller never gets."""
    born = process.clone3

    def interrupted(flags: int, *, cgroup_fd: int = -1) -> tuple[int, int]:
        pid, pidfd = born(flags, cgroup_fd=cgroup_fd)
        if pid:
            found.append(pid)
            os.kill(os.getpid(), signal.SIGINT)
        return pid, pidfd

    found: list[int] = []
    monkeypatch.setattr(process, "clone3", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.spawn(signal.pause)
    assert process.start_time(found[0]) == 0


def test_host_pid_and_start_time() -> None:
    with process.spawn(signal.pause) as child:
        assert process.host_pid(child.pidfd) == child.pid
        first = process.start_time(child.pid)
        assert first >= process.start_time(os.getpid()) > 0
        process.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        child.wait()
        assert process.start_time(child.pid) == 0


def test_who_has_ended_does_not_run_whoever_reaps_it() -> None:
    started = process.start_time(os.getpid())
    assert process.is_running(os.getpid(), started)
    assert not process.is_running(os.getpid(), started + 1)
    with process.spawn(lambda: None) as child:
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
        started = process.start_time(child.pid)
        assert started, "it has its number still"
        assert not process.is_running(child.pid, started)
        child.wait()
    assert not process.is_running(child.pid, started)


def test_start_time_of_a_name_full_of_parentheses() -> None:
    def child() -> object:
        process.set_name(") R 1 2 (")
        return process.start_time(os.getpid())

    assert isinstance(result_of(child), int)
    assert result_of(child) >= process.start_time(os.getpid())  # type: ignore[operator]


def test_host_pid_of_something_else() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(OSError, match="not a pidfd"):
            process.host_pid(reader)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    "failure",
    [
        Failure(errno.ENOENT, "mount proc", "/proc", "No such file or directory"),
        Failure(0, "", "", ""),
        Failure(errno.EINVAL, "step", os.fsdecode(b"/\xff\xfe"), "ümlaut\nline two"),
    ],
)
def test_failure_round_trip(failure: Failure) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    process.send_failure(writer, failure)
    os.close(writer)
    try:
        assert process.read_failure(reader) == failure
    finally:
        os.close(reader)


def test_long_failure_arrives_in_one_piece_and_keeps_its_errno() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    process.send_failure(writer, Failure(errno.ELOOP, "s" * 5000, "p\0q" * 5000, "m" * 5000))
    assert len(os.read(reader, 65536)) <= 4096
    process.send_failure(writer, Failure(errno.ELOOP, "s", "p\0q", "m\0n"))
    os.close(writer)
    failure = process.read_failure(reader)
    os.close(reader)
    assert failure == Failure(errno.ELOOP, "s", "p?q", "m?n")


def test_silence_is_success_and_a_bare_errno_is_the_trampolines() -> None:
    assert process.parse_failure(b"") is None
    failure = process.parse_failure(errno.EACCES.to_bytes(4, "little"))
    assert failure == Failure(errno.EACCES, "exec", "", os.strerror(errno.EACCES))
    assert isinstance(failure.error(), PermissionError)


@pytest.mark.parametrize("data", [b"F", b"F\0\0", b"Fx\0\0\0", b"Gnonsense", b"abc"])
def test_broken_report_is_a_failure_too(data: bytes) -> None:
    failure = process.parse_failure(data)
    assert failure is not None
    assert failure.errno == errno.EPROTO


def test_failure_to_a_reader_who_has_gone() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(reader)
    process.send_failure(writer, Failure(1, "a", "b", "c"))
    os.close(writer)


def test_close_from_leaves_only_what_is_kept() -> None:
    def is_open(fd: int) -> bool:
        try:
            os.fstat(fd)
        except OSError:
            return False
        return True

    def child() -> object:
        opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
        lowest = min(opened)
        keep = {opened[0], opened[7], opened[8], opened[19], 0, 100000}
        # The result's pipe has to survive.
        report = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd not in opened]
        process.close_from(3, keep=[*keep, *report])
        left = {fd for fd in opened if is_open(fd)}
        return [lowest in left, left == {opened[0], opened[7], opened[8], opened[19]}]

    assert result_of(child) == [True, True]


def test_rlimits_by_name() -> None:
    def child() -> object:
        process.set_rlimit("RLIMIT_CORE", 0, 0)
        process.set_rlimit("nofile", 64, 128)
        return [resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE)]

    assert result_of(child) == [[0, 0], [64, 128]]


@pytest.mark.parametrize(("name", "soft", "hard"), [("nonsense", 1, 1), ("RLIMIT_X", 1, 1), ("nofile", 64, 32)])
def test_rlimit_refusals(name: str, soft: int, hard: int) -> None:
    with pytest.raises(OSError, match=name) as caught:
        process.set_rlimit(name, soft, hard)
    assert caught.value.errno == errno.EINVAL


def test_what_a_process_sets_for_itself() -> None:
    def status() -> dict[str, str]:
        with open("/proc/self/status", encoding="utf-8") as file:
            return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}

    def child() -> object:
        process.set_name("a-name-that-is-too-long")
        process.set_no_new_privs()
        process.set_dumpable(False)
        process.set_child_subreaper()
        process.set_pdeathsig(signal.SIGTERM)
        process.setsid()
        import prctl

        values = status()
        return [
            values["Name"],
            values["NoNewPrivs"],
            prctl.get_dumpable(),
            prctl.get_child_subreaper(),
            prctl.get_pdeathsig(),
            os.getsid(0) == os.getpid(),
        ]

    assert result_of(child) == ["a-name-that-is-", "1", 0, 1, signal.SIGTERM, True]


def test_reset_signals_undoes_what_python_ignores() -> None:
    def child() -> object:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.reset_signals()
        with open("/proc/self/status", encoding="utf-8") as file:
            return [line.split()[1] for line in file if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]

    blocked, ignored, caught = (int(mask, 16) for mask in result_of(child))  # type: ignore[attr-defined]
    # Signals 32 and 33 are the C library's own.
    assert (blocked, ignored, caught & ~(0b11 << 31)) == (0, 0, 0)


def test_pdeathsig_kills_with_the_parent() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    ready, ready_writer = os.pipe2(os.O_CLOEXEC)

    def grandchild() -> None:
        process.set_pdeathsig(signal.SIGKILL)
        os.write(writer, b"x")
        os.write(ready_writer, b"x")
        signal.pause()

    def child() -> None:
        process.spawn(grandchild)
        os.read(ready, 1)

    with process.spawn(child) as spawned:
        os.close(writer)
        assert spawned.wait() == 0
    # The end of the pipe comes when the grandchild has gone, too.
    data = b""
    while chunk := os.read(reader, 16):
        data += chunk
    for number in (reader, ready, ready_writer):
        os.close(number)
    assert data == b"x"


def test_session_keyring() -> None:
    def child() -> object:
        serial = process.join_session_keyring("_ses.minidock-test")
        with open("/proc/keys", encoding="ascii") as file:
            rows = [line.split() for line in file if "_ses.minidock-test" in line]
        return [serial > 0, [row[4][2:4] for row in rows if int(row[0], 16) == serial]]

    try:
        with open("/proc/keys", encoding="ascii"):
            pass
    except FileNotFoundError:
        pytest.skip("this kernel has no keyrings (no /proc/keys)")
    found, permissions = result_of(child)  # type: ignore[misc]
    assert found
    # The user's byte of the mask: view 1, read 2, write 4, search 8.
    assert [int(p, 16) & 0x08 for p in permissions] == [0x08]


def test_a_flood_of_a_failure_is_not_read_to_its_end() -> None:
    """Whoever got hold of the other end could write for ever, and keep it open."""
    reader, writer = os.pipe()
    os.write(writer, b"F" * 60000)
    failure = process.read_failure(reader)
    assert failure is not None
    assert failure.errno == errno.EPROTO
    assert len(os.read(reader, 65536)) > 40000
    os.close(reader)
    os.close(writer)


def test_a_doubt_counts_only_if_the_kernel_refuses_the_program() -> None:
    reader, writer = os.pipe()
    process.send_failure(writer, Failure(0, "CommandNotExecutableError", "a hint", "for another machine"), doubt=True)
    os.close(writer)
    doubt = os.read(reader, 4096)
    os.close(reader)
    assert process.parse_failure(doubt) is None, "the exec has closed the pipe: a handler ran it"
    for number in (errno.ENOEXEC, errno.ENOENT):
        failure = process.parse_failure(doubt + number.to_bytes(4, "little"))
        assert failure == Failure(0, "CommandNotExecutableError", "a hint", "for another machine")
    refused = process.parse_failure(doubt + errno.EACCES.to_bytes(4, "little"))
    assert refused is not None
    assert (refused.errno, refused.step) == (errno.EACCES, "exec")


def test_a_failure_is_an_error_of_the_kernels_own() -> None:
    raised = Failure(errno.ENOENT, "step", "/x", "gone").error()
    assert isinstance(raised, FileNotFoundError)
    assert (raised.filename, raised.strerror) == ("/x", "gone")
