"""Callers in odd states; and a start that fails leaves them nothing: no descriptor, process, cgroup or mount."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import CommandNotFoundError, ContainerStartError, MinidockError
from minidock.kernel import cgroups
from minidock.kernel import process as kp
from minidock.log import Log
from minidock.runtime import launch
from minidock.runtime.context import Stdio
from minidock.runtime.step import cgroup_name


def descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue
    return sorted(found)


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def own_cgroups() -> list[str]:
    return [str(path) for path in Path("/sys/fs/cgroup").rglob(f"{cgroup_name()}-*")]


@contextmanager
def nothing_stays() -> Iterator[None]:
    before = descriptors(), children(), Path("/proc/self/mountinfo").read_text()
    yield
    assert (descriptors(), children(), Path("/proc/self/mountinfo").read_text()) == before
    assert own_cgroups() == []


def in_a_child(action: Callable[[], bool]) -> None:
    """Fork: the action may spoil the process."""
    pid = os.fork()
    if pid == 0:
        good = False
        try:
            good = action()
        finally:
            os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def begin(sandbox, *args: str, terminal: bool = False, change: Callable[[dict[str, Any]], None] | None = None):
    spec = sandbox.spec(*args)
    spec["process"]["terminal"] = terminal
    if change:
        change(spec)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        return launch.start(sandbox.plan(spec), stdio=Stdio(null, null, null, terminal), log=Log())
    finally:
        os.close(null)


def no_such_source(spec) -> None:
    spec["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]})


def no_such_sysctl(spec) -> None:
    spec["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "nonsense"}


def no_such_device(spec) -> None:
    spec["linux"]["resources"]["devices"] = [{"allow": True, "type": "c", "major": -5, "minor": 1, "access": "rwm"}]


@pytest.mark.parametrize("change", [None, no_such_source, no_such_sysctl, no_such_device])
@pytest.mark.parametrize("terminal", [False, True])
def test_after_a_failed_start(sandbox, change, terminal: bool) -> None:
    with nothing_stays(), pytest.raises(MinidockError):
        begin(sandbox, "nothing-of-that-name", terminal=terminal, change=change)


@pytest.mark.parametrize("terminal", [False, True])
def test_after_every_descriptor_that_is_refused(sandbox, terminal: bool) -> None:
    """With room for one descriptor more each time, the start fails at another place, until it succeeds."""
    spec = sandbox.spec("true")
    spec["process"]["terminal"] = terminal
    plan = sandbox.plan(spec)

    def action() -> bool:
        last = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        while last < 100:
            last = os.dup(last)
        failures = 0
        for room in range(40):
            resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1 + room, 4096))
            try:
                started = launch.start(plan, stdio=Stdio(last, last, last, terminal), log=Log())
            except ContainerStartError:
                failures += 1
            else:
                kp.wait_pidfd(started.pidfd)
                for fd in (started.pidfd, started.console):
                    if fd >= 0:
                        os.close(fd)
                started.cgroup.remove()
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
            if os.dup(last) != last + 1:
                return False
            os.close(last + 1)
        return 5 < failures < 35 and own_cgroups() == [] and children() == ""

    in_a_child(action)


def test_a_step_of_the_parent_that_fails_beside_the_child(sandbox) -> None:
    plan = sandbox.plan(sandbox.spec("sleep", "1000"))

    class Refused:
        where = "parent"
        why = "network"

        def describe(self) -> str:
            return "refused " * 100

        def execute(self, context) -> None:
            assert context.pid > 0
            raise OSError(errno.EBUSY, "Device or resource busy", "veth1")

    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        with nothing_stays(), pytest.raises(ContainerStartError) as caught:
            launch.start(plan._replace(beside=(Refused(),)), stdio=Stdio(null, null, null), log=Log())
    finally:
        os.close(null)
    assert caught.value.message == "cannot start the container: device or resource busy: veth1"
    assert len(caught.value.hint) < 120


@pytest.mark.parametrize("place", ["announce", "read_ready", "finish_birth", "_clone_into"])
def test_an_interrupt_anywhere_kills_the_child(sandbox, monkeypatch, place: str) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    if place != "announce":
        monkeypatch.setattr(launch, place, interrupt)
    plan = sandbox.plan(sandbox.spec("sleep", "1000"))
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    announce = interrupt if place == "announce" else None
    try:
        with nothing_stays(), pytest.raises(KeyboardInterrupt):
            launch.start(plan, stdio=Stdio(null, null, null), log=Log(), announce=announce)
    finally:
        os.close(null)


def test_a_signal_at_the_birth_is_handled_once_and_by_the_parent(sandbox, monkeypatch, tmp_path: Path) -> None:
    """It comes between clone3 and the note of the child: the handler's exception must not lose the child."""
    handled = tmp_path / "handled"

    def handler(number: int, frame: object) -> None:
        with open(handled, "a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        raise TimeoutError

    clone3 = kp.clone3

    def clone_and_be_hit(flags: int, **options: Any) -> tuple[int, int]:
        child = clone3(flags, **options)
        os.kill(os.getpid(), signal.SIGUSR1)
        return child

    monkeypatch.setattr(kp, "clone3", clone_and_be_hit)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with nothing_stays(), pytest.raises(TimeoutError):
            begin(sandbox, "sleep", "1000")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled.read_text() == f"{os.getpid()}\n"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2), (3,)])
def test_closed_standard_descriptors(sandbox, closed: tuple[int, ...]) -> None:
    def action() -> bool:
        for fd in closed:
            try:
                os.close(fd)
            except OSError:
                continue
        return sandbox.sh("cat; echo out; echo err >&2").output == "out\nerr\n"

    in_a_child(action)


def test_more_than_1024_descriptors_of_the_caller(sandbox) -> None:
    def action() -> bool:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        for _ in range(1500):
            os.set_inheritable(os.open("/dev/null", os.O_RDONLY), True)
        # The last one is of the directory that ls reads.
        return sandbox.sh("ls /proc/$$/fd").output.split() == ["0", "1", "2", "3"]

    in_a_child(action)


def test_signals_that_the_caller_blocks_or_ignores_are_not_the_commands(sandbox) -> None:
    def action() -> bool:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        text = sandbox.run("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status").output
        return text.split()[1::2] == ["0" * 16] * 2

    in_a_child(action)


def test_no_cgroup_controller_for_devices_is_a_refusal(sandbox) -> None:
    plan = sandbox.plan(sandbox.spec("true"))
    bare = cgroups.NoCgroups()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroups, "create", lambda _: bare)
        with pytest.raises(ContainerStartError, match="no mounted cgroup hierarchy can limit devices"):
            launch.start(plan, stdio=Stdio(0, 1, 2), log=Log())


def test_a_missing_command_with_a_terminal_gives_back_the_master(sandbox) -> None:
    for _ in range(3):
        with nothing_stays(), pytest.raises(CommandNotFoundError):
            begin(sandbox, "nothing", terminal=True)
