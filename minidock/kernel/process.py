"""Processes: birth by clone3, death by pidfd, and what a process sets for itself.

Sources: clone(2), pidfd_open(2), waitid(2), prctl(2), close_range(2), keyctl(2), proc(5).
"""

from __future__ import annotations

import ctypes
import errno as errnos
import os
import resource
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from minidock.kernel.clone import clone, clone_from_threads
from minidock.kernel.syscall import (
    SYS_CLOSE_RANGE,
    SYS_KEYCTL,
    SYS_PIDFD_SEND_SIGNAL,
    cstring,
    libc,
    syscall,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_SIGKILL = 9
_SIGSTOP = 19
_SIGNALS = 64
_RLIMIT_LOCKS = 10
_SIG_SETMASK = 2
_SIGSET_SIZE = 128
_KEYCTL_JOIN_SESSION_KEYRING = 1
_KEYCTL_SETPERM = 5
_KEYCTL_DESCRIBE = 6
_KEY_USR_SEARCH = 0x00080000
_CLOSE_RANGE_LAST = 0xFFFFFFFF
_FAILURE_MOST = 8192

libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
libc.signal.restype = ctypes.c_void_p


class Child:
    """A child: its number in the caller's pid namespace and a CLOEXEC pidfd, closed at the end of a ``with``."""

    __slots__ = ("pid", "pidfd")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Child(pid={self.pid}, pidfd={self.pidfd})"

    def wait(self) -> int:
        """Reap the child and return its exit code, as ``wait_pidfd`` does."""
        code = wait_pidfd(self.pidfd)
        assert code is not None
        return code

    def close(self) -> None:
        """Close the pidfd; a second call does nothing."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def clone3(flags: int, *, cgroup_fd: int = -1) -> tuple[int, int]:
    """Make a child as fork does, with new namespaces of the CLONE_NEW* kinds in ``flags`` (clone(2), Linux 5.5).

    Returns (pid, pidfd), and (0, -1) in the child, which must end in ``exit_now`` or an exec. ``cgroup_fd`` is a cgroup
    v2 directory that the child is born in (Linux 5.7). Handlers registered with os.register_at_fork don't run. Raises
    OSError.
    """
    return clone_from_threads(flags, cgroup_fd) if thread_count() > 1 else clone(flags, cgroup_fd)


def spawn(child: Callable[[], int | None], *, flags: int = 0, cgroup_fd: int = -1) -> Child:
    """Run ``child`` in a new process, made by ``clone3``; its result, or 0 for None, is the exit status.

    The child ends there, by os._exit: nothing of the caller's frames, buffers or exit handlers runs in it. Any
    exception ends it with status 1, silently: a child that has something to say uses ``send_failure``. Where a signal's
    handler raises in the caller, the child is killed.
    """
    born = None
    try:
        # A Python signal handler that runs between the birth and the child's ``try`` would raise in both processes.
        with signals_blocked() as mask:
            pid, pidfd = clone3(flags, cgroup_fd=cgroup_fd)
            if pid == 0:
                _run_child(child, mask)
            born = Child(pid, pidfd)
    except BaseException:
        # A handler that runs now, for a signal that came meanwhile, would leave the caller without its child.
        if born is not None:
            pidfd_send_signal(born.pidfd, _SIGKILL)
            born.wait()
            born.close()
        raise
    return born


def _run_child(child: Callable[[], int | None], mask: bytes) -> None:
    status = 1
    try:
        _set_signal_mask(mask)
        status = int(child() or 0) & 0xFF
    except SystemExit as leaving:
        status = leaving.code & 0xFF if isinstance(leaving.code, int) else 1
    finally:
        os._exit(status)


def _set_signal_mask(mask: bytes | None, old: ctypes.Array[ctypes.c_char] | None = None) -> None:
    code = libc.pthread_sigmask(_SIG_SETMASK, mask, old)
    if code:
        raise OSError(code, os.strerror(code))


@contextmanager
def signals_blocked() -> Iterator[bytes]:
    """No signal interrupts the calling thread in the ``with``: neither the kernel's delivery nor a Python handler.
    Gives the mask of before, which holds again afterwards.

    One that Python had noted before is handled first, and what its handler raises comes out of the ``with`` line.
    """
    old_mask = ctypes.create_string_buffer(_SIGSET_SIZE)
    _set_signal_mask(None, old_mask)
    try:
        _set_signal_mask(b"\xff" * _SIGSET_SIZE)
        ctypes.pythonapi.PyErr_CheckSignals()
        yield old_mask.raw
    finally:
        _set_signal_mask(old_mask.raw)


def reset_signals() -> None:
    """Give every signal its default action and unblock all: what a program expects at its start.

    Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored through exec. Only for a process that is
    about to exec: Python's own notion of its handlers is not updated.
    """
    for number in range(1, _SIGNALS + 1):
        if number not in (_SIGKILL, _SIGSTOP):
            libc.signal(number, None)
    _set_signal_mask(bytes(_SIGSET_SIZE))


def exit_now(status: int) -> NoReturn:
    """End the process at once, without exit handlers or flushing (os._exit); ``status`` 0 to 255."""
    os._exit(status)


def wait_pidfd(pidfd: int, *, block: bool = True) -> int | None:
    """Reap the child of a pidfd: its exit code, or minus the signal's number that killed it.

    None when ``block`` is false and it still runs. Raises ChildProcessError when it is not a child of the caller or
    has been reaped.
    """
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | (0 if block else os.WNOHANG))
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def pidfd_send_signal(pidfd: int, sig: int) -> None:
    """Send a signal; 0 only asks whether that is possible. Raises ProcessLookupError when the process is gone."""
    syscall(SYS_PIDFD_SEND_SIGNAL, pidfd, int(sig), None, 0)


def host_pid(pidfd: int) -> int:
    """The number of a pidfd's process in the pid namespace of the mounted /proc; 0 when it is gone or not visible."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
        for line in file:
            if line.startswith(b"Pid:"):
                return max(int(line[4:]), 0)
    raise OSError(errnos.EINVAL, "not a pidfd", f"/proc/self/fd/{pidfd}")


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); 0 when there is none.

    Together with the number it names a process once and for all: numbers are used again.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def is_running(pid: int, started: int) -> bool:
    """Whether the process with that number and start time has not ended. One that has, and that its parent has not
    reaped, still has its number."""
    fields = _stat(pid)
    return bool(fields) and int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on, the state; none when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The name in field 2 may hold spaces and parentheses.
    return text[text.rindex(b")") + 2 :].split()


def thread_count() -> int:
    """How many threads the calling process has."""
    return len(os.listdir("/proc/self/task"))


class Failure:
    """Why a child could not go on: errno (0 when there is none), what it was doing, on which path, and the text."""

    __slots__ = ("errno", "message", "path", "step")

    def __init__(self, errno: int, step: str, path: str, message: str) -> None:
        self.errno = errno
        self.step = step
        self.path = path
        self.message = message

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Failure) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return "Failure({!r}, {!r}, {!r}, {!r})".format(*self._key())

    def _key(self) -> tuple[int, str, str, str]:
        return self.errno, self.step, self.path, self.message

    def error(self) -> OSError:
        """The same as an OSError, to be raised in the parent."""
        return OSError(self.errno, self.message or os.strerror(self.errno), self.path or None)


def send_failure(fd: int, failure: Failure, *, doubt: bool = False) -> None:
    """Write a failure into a pipe or socket whose other end ``read_failure`` reads. A vanished reader is no error.

    With ``doubt`` it is one only if the exec that follows finds the program to be none that this host can execute.
    """
    fields = (str(failure.errno), failure.step, failure.path, failure.message)
    # At most PIPE_BUF bytes, so that it arrives whole.
    data = b"\0".join(os.fsencode(field).replace(b"\0", b"?")[:1300] for field in fields)
    data = b"D" + data + b"\0" if doubt else b"F" + data
    try:
        os.write(fd, data)
    except BrokenPipeError:
        return


def read_failure(fd: int) -> Failure | None:
    """Read a CLOEXEC pipe to its end: None means that the child's exec succeeded (or that the child died silently).

    Blocks until every writer is gone, or has written more than a failure's size: between the trampoline's exec and the
    command's, a process of the container may have got hold of the other end, and could write without end. Understands
    ``send_failure`` and the exec trampoline's bare errno.
    """
    data = b""
    while len(data) <= _FAILURE_MOST and (chunk := os.read(fd, 4096)):
        data += chunk
    return parse_failure(data)


def parse_failure(data: bytes) -> Failure | None:
    """A failure from its bytes; None for no bytes, and for a doubt that was not borne out."""
    if data[:1] == b"D" and data.count(b"\0") >= 4:
        end = data.split(b"\0", 4)[4]
        # ENOENT: a handler whose interpreter is not found inside.
        unfit = len(end) == 4 and int.from_bytes(end, "little") in (errnos.ENOEXEC, errnos.ENOENT)
        data = b"F" + data[1:-5] if unfit else end
    if not data:
        return None
    if len(data) == 4 and data[:1] != b"F":
        code = int.from_bytes(data, "little")
        return Failure(code, "exec", "", os.strerror(code))
    fields = [os.fsdecode(field) for field in data[1:].split(b"\0", 3)]
    if data[:1] != b"F" or len(fields) != 4 or not fields[0].isdigit():
        return Failure(errnos.EPROTO, "report", "", f"a broken failure report: {data[:80]!r}")
    return Failure(int(fields[0]), fields[1], fields[2], fields[3])


def set_pdeathsig(sig: int) -> None:
    """Have the kernel send ``sig`` when the thread that made this process ends. A change of credentials undoes it."""
    import prctl

    prctl.set_pdeathsig(int(sig))


def set_no_new_privs() -> None:
    """Let no exec from here on gain privileges (set-user-ID, file capabilities). There is no way back."""
    import prctl

    prctl.set_no_new_privs(1)


def set_dumpable(dumpable: bool) -> None:
    """Whether other processes of the same user may ptrace this one and read its /proc/PID files; an exec sets it."""
    import prctl

    prctl.set_dumpable(int(dumpable))


def set_name(name: str) -> None:
    """The thread's name as ps shows it: at most 15 bytes, the rest is cut."""
    import prctl

    prctl.set_name(os.fsencode(name)[:15].decode("utf-8", "ignore"))


def set_child_subreaper(enabled: bool = True) -> None:
    """Become the parent of orphaned descendants."""
    import prctl

    prctl.set_child_subreaper(int(enabled))


def setsid() -> None:
    """Lead a new session without a controlling terminal. Raises PermissionError for a process group's leader."""
    os.setsid()


def close_from(lowest: int, *, keep: Collection[int] = ()) -> None:
    """Close every descriptor from ``lowest`` on except those in ``keep`` (close_range(2), Linux 5.9)."""
    first = lowest
    for fd in sorted(fd for fd in set(keep) if fd >= lowest):
        if fd > first:
            syscall(SYS_CLOSE_RANGE, first, fd - 1, 0)
        first = fd + 1
    syscall(SYS_CLOSE_RANGE, first, _CLOSE_RANGE_LAST, 0)


def limit_number(name: str) -> int:
    """The kernel's number of a resource limit: "RLIMIT_NOFILE" or "nofile". OSError(EINVAL) for an unknown one."""
    key = name.upper()
    key = key if key.startswith("RLIMIT_") else f"RLIMIT_{key}"
    # Python has no name for RLIMIT_LOCKS, which no kernel since 2.4 looks at.
    number: int | None = _RLIMIT_LOCKS if key == "RLIMIT_LOCKS" else getattr(resource, key, None)
    if number is None:
        raise OSError(errnos.EINVAL, "unknown resource limit", name)
    return number


def set_rlimit(name: str, soft: int, hard: int, *, pid: int = 0) -> None:
    """Set a resource limit by its name, "RLIMIT_NOFILE" or "nofile"; -1 is unlimited; ``pid`` 0 is the caller.

    Raises OSError(EINVAL) for an unknown name or a soft limit above the hard one, PermissionError for a hard limit
    above the present one without CAP_SYS_RESOURCE.
    """
    number = limit_number(name)
    try:
        resource.prlimit(pid, number, (soft, hard))
    except ValueError as error:
        raise OSError(errnos.EINVAL, str(error), name) from None


def join_session_keyring(name: str) -> int:
    """Join a session keyring of that name, made when there is none, and let its user's processes search it.

    Returns its serial number, or 0 when the kernel has no keyrings. Raises OSError. keyctl(2).
    """
    try:
        serial = syscall(SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, cstring(name), path=name)
    except OSError as error:
        if error.errno == errnos.ENOSYS:
            return 0
        raise
    buffer = ctypes.create_string_buffer(1024)
    syscall(SYS_KEYCTL, _KEYCTL_DESCRIBE, serial, buffer, len(buffer), path=name)
    # "type;uid;gid;permissions in hexadecimal;description"
    permissions = int(buffer.value.split(b";")[3], 16)
    syscall(SYS_KEYCTL, _KEYCTL_SETPERM, serial, permissions | _KEY_USR_SEARCH, path=name)
    return serial
