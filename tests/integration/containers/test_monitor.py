"""The monitor: start, output, end, verbs, and what is left afterwards (nothing)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.containers import attach, lifecycle, logs, status
from minidock.errors import (
    CommandNotFoundError,
    ConflictError,
    ContainerStartError,
    MountSpecError,
    NoSuchContainerError,
    NoSuchVolumeError,
    StoreError,
)
from minidock.kernel import process
from minidock.model.mounts import Mount
from minidock.store.containers import ContainerStore


def test_run_gives_output_of_both_streams_and_the_exit_code(box: Any) -> None:
    outcome, out, err = box.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (outcome.status, out, err) == (7, b"out\n", b"err\n")
    [(record, state)] = status.list_all(box.parts)
    assert (state.status, state.exit_code, state.pid, state.monitor_pid) == ("exited", 7, 0, 0)
    assert state.finished >= state.started > 0
    assert (box.output(record, 1), box.output(record, 2)) == (b"out\n", b"err\n")


def test_death_by_a_signal_is_128_and_its_number(box: Any) -> None:
    # The first process of a pid namespace ignores what it sends itself; a fault is the kernel's.
    outcome, _, _ = box.run("python3", "-c", "import ctypes; ctypes.string_at(0)")
    assert outcome.status == 128 + signal.SIGSEGV


def test_nothing_is_left_after_the_end(box: Any) -> None:
    box.run("true")
    [(record, _)] = status.list_all(box.parts)
    assert os.listdir(box.root.run) == []
    assert os.listdir(box.root.tmp) == []
    assert sorted(os.listdir(box.folder(record))) == ["container.json", "lock", "log", "log.index", "state.json"]
    assert not status.is_live(box.parts, record.id)


def test_keep_keeps_the_writable_layer(box: Any) -> None:
    box.run("true", keep=True)
    [(record, _)] = status.list_all(box.parts)
    assert (box.folder(record) / "upper").is_dir()


def test_auto_remove_removes_record_and_anonymous_volumes_but_no_named_one(box: Any) -> None:
    mounts = (Mount("volume", "", "/a"), Mount("volume", "named", "/n", create=True, origin="-v"))
    outcome, _, _ = box.run("true", auto_remove=True, mounts=mounts, config={"Volumes": {"/v": {}}})
    assert outcome.status == 0
    assert status.list_all(box.parts) == []
    assert [volume.name for volume in box.parts.volumes.list()] == ["named"]


def test_stdin_arrives_and_ends_once(box: Any) -> None:
    data = os.urandom(3 << 20)
    outcome, out, _ = box.run("cat", stdin=data)
    assert outcome.status == 0
    assert out == data


def test_without_interactive_stdin_is_empty(box: Any) -> None:
    outcome, out, _ = box.run("cat")
    assert (outcome.status, out) == (0, b"")


def test_output_is_exact_however_slow_the_reader_is(box: Any, fake_launch: Any) -> None:
    """The container writes 16 MiB and ends at once; a client that reads nothing meanwhile still gets every byte."""
    record = box.create("sh", "-c", "head -c 16777216 /dev/zero | tr '\\0' x; echo done >&2")
    running = lifecycle.start(box.parts, record.id, attached=True, launch=fake_launch)
    assert running is not None
    deadline = time.monotonic() + 10
    while box.state(record).status != "exited":
        assert time.monotonic() < deadline, "a reader that does not read keeps the container from ending"
        time.sleep(0.01)
    out, err = os.memfd_create("out"), os.memfd_create("err")
    session = attach.Session(running.connection, stdin=-1, stdout=out, stderr=err, terminal=False, proxy=False)
    assert session.run().status == 0
    lifecycle.finish(running)
    assert Path(f"/proc/self/fd/{out}").read_bytes() == b"x" * 16777216
    assert Path(f"/proc/self/fd/{err}").read_bytes() == b"done\n"
    os.close(out)
    os.close(err)


def test_many_small_writes_arrive_exactly(box: Any) -> None:
    _, out, _ = box.run("python3", "-c", "import os\nfor n in range(50000): os.write(1, b'%d\\n' % (n % 10))")
    assert out == b"".join(b"%d\n" % (n % 10) for n in range(50000))


def test_two_clients_get_the_same(box: Any, wait_until: Callable[..., None]) -> None:
    record = box.create("sh", "-c", "read line; echo got $line", interactive=True)
    box.start(record)
    opened, outs = [], []
    connections = [attach.connect(box.root, record.id) for _ in range(2)]
    sessions = []
    for number, connection in enumerate(connections):
        fd = os.memfd_create("out")
        outs.append(fd)
        read_end, write_end = os.pipe()
        opened += [connection, read_end, write_end]
        if number == 1:
            os.write(write_end, b"hello\n")
        session = attach.Session(connection, stdin=read_end, stdout=fd, stderr=-1, terminal=False, proxy=False)
        os.set_blocking(connection, False)
        sessions.append((session, connection))
    os.write(connections[0], b"\x06\0\0\0\0\0\0\0")
    assert sessions[1][0].run(attach=True).status == 0
    assert sessions[0][0].run().status == 0
    for fd in outs:
        assert Path(f"/proc/self/fd/{fd}").read_bytes() == b"got hello\n"
    for fd in (*opened, *outs):
        os.close(fd)


def test_a_terminal_merges_streams_and_takes_sizes(box: Any, wait_until: Callable[..., None]) -> None:
    record = box.create("sh", "-c", "stty size; read x; stty size; echo err >&2", tty=True, interactive=True)
    box.start(record)
    box.wait_for_output(record, b"24 80")
    connection = attach.connect(box.root, record.id)
    os.write(connection, b"\x05\0\0\0\0\0\0\x04\x00\x30\x00\x90\x00\0\0\0\0\0\0\x01\n")
    assert attach.exit_status(connection) == 0
    os.close(connection)
    assert b"48 144\r\n" in box.output(record)
    assert b"err\r\n" in box.output(record)


def test_a_detached_container_has_a_small_monitor(box: Any, wait_until: Callable[..., None]) -> None:
    record = box.create("sleep", "1000")
    box.start(record)
    state = box.state(record)
    assert state.status == "running"
    wait_until(lambda: b"minidock.containers.lean" in Path(f"/proc/{state.monitor_pid}/cmdline").read_bytes())
    assert os.getsid(state.monitor_pid) == state.monitor_pid
    for fd in (0, 1, 2):
        assert os.readlink(f"/proc/{state.monitor_pid}/fd/{fd}") == "/dev/null"


def test_stop_asks_and_then_kills(box: Any) -> None:
    polite = box.create("sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done")
    deaf = box.create("sleep", "1000")
    for record in (polite, deaf):
        box.start(record)
    box.wait_for_output(polite, b"ready")
    lifecycle.stop(box.parts, polite.id)
    assert (box.state(polite).status, box.state(polite).exit_code, box.output(polite)) == ("exited", 3, b"ready\nbye\n")
    begun = time.monotonic()
    lifecycle.stop(box.parts, deaf.id, timeout=1)
    assert 1 <= time.monotonic() - begun < 5
    assert box.state(deaf).exit_code == 137
    lifecycle.stop(box.parts, deaf.id)


def test_kill_and_wait(box: Any) -> None:
    record = box.create("sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done")
    with pytest.raises(ConflictError, match="not running"):
        lifecycle.kill(box.parts, record.id)
    box.start(record)
    box.wait_for_output(record, b"ready")
    lifecycle.kill(box.parts, record.id, signal="USR1")
    assert lifecycle.wait(box.parts, record.id) == 5
    assert lifecycle.wait(box.parts, record.id) == 5
    with pytest.raises(ConflictError, match="not running"):
        lifecycle.kill(box.parts, record.id, signal="TERM")


def test_wait_returns_when_everything_is_taken_down(box: Any) -> None:
    """The exit is recorded first: its monitor still has the lock while it removes the writable layer."""
    record = box.create("sh", "-c", "exit 3")
    box.start(record)
    lifecycle.wait(box.parts, record.id)
    lock = status.take_lock(box.parts, record.id, seconds=5)
    freed: list[bool] = []

    def free() -> None:
        time.sleep(0.2)
        freed.append(True)
        os.close(lock)

    thread = threading.Thread(target=free)
    thread.start()
    assert lifecycle.wait(box.parts, record.id) == 3
    assert freed == [True]
    thread.join()


def test_start_of_a_running_one_is_nothing(box: Any) -> None:
    record = box.create("sleep", "1000")
    box.start(record)
    pid = box.state(record).pid
    assert lifecycle.start(box.parts, record.id) is None
    assert box.state(record).pid == pid


def test_of_simultaneous_starts_one_starts(box: Any, fake_launch: Any) -> None:
    record = box.create("sleep", "1000")

    def start() -> int:
        return 1 if lifecycle.start(box.parts, record.id, launch=fake_launch) is None else 0

    children = [process.spawn(start) for _ in range(5)]
    assert sorted(child.wait() for child in children) == [0, 1, 1, 1, 1]
    for child in children:
        child.close()
    assert box.state(record).status == "running"


def test_a_second_start_begins_afresh_and_says_so(box: Any) -> None:
    record = box.create("sh", "-c", "echo again")
    for _ in range(2):
        box.start(record)
        lifecycle.wait(box.parts, record.id)
    assert box.output(record) == b"again\nagain\n"
    assert box.said().count("fresh layer") == 1
    assert record.name in box.said()


def test_remove(box: Any) -> None:
    record = box.create("sleep", "1000", name="gone", mounts=(Mount("volume", "", "/a"),))
    box.start(record)
    with pytest.raises(ConflictError, match="running") as caught:
        lifecycle.remove(box.parts, record.id)
    assert "rm -f" in caught.value.hint
    lifecycle.remove(box.parts, record.id, force=True)
    assert len(box.parts.volumes.list()) == 1
    with pytest.raises(NoSuchContainerError):
        box.parts.containers.resolve("gone")
    assert os.listdir(box.root.tmp) == []
    assert os.listdir(box.root.run) == []


def test_remove_of_a_damaged_record(box: Any) -> None:
    record = box.create("true")
    (box.folder(record) / "container.json").write_text("{")
    lifecycle.remove(box.parts, record.id)
    assert box.parts.containers.ids() == []


def test_a_damaged_container_that_runs_can_be_removed_with_force(box: Any) -> None:
    record = box.create("sleep", "1000")
    box.start(record)
    pid = box.state(record).pid
    (box.folder(record) / "container.json").write_text("{")
    with pytest.raises(ConflictError, match="running"):
        lifecycle.remove(box.parts, record.id)
    lifecycle.remove(box.parts, record.id, force=True)
    assert not Path(f"/proc/{pid}").exists()
    assert os.listdir(box.root.run) == []


def test_a_full_disk_at_the_end_still_leaves_the_exit_code(
    box: Any, fake_launch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ContainerStore.write_state

    def full(store: ContainerStore, container_id: str, state: Any, *, sync: bool) -> None:
        if state.status == "exited" and (box.folder(record) / "upper").exists():
            raise StoreError("cannot write: no space left on device")
        real(store, container_id, state, sync=sync)

    record = box.create("sh", "-c", "exit 6")
    monkeypatch.setattr(ContainerStore, "write_state", full)
    running = lifecycle.start(box.parts, record.id, attached=True, launch=fake_launch)
    assert running is not None
    assert attach.exit_status(running.connection) == 6
    lifecycle.finish(running)
    assert (box.state(record).status, box.state(record).exit_code) == ("exited", 6)
    assert os.listdir(box.root.run) == []


def test_a_failed_start_leaves_the_container_as_it_was(box: Any) -> None:
    def refuse(request: object) -> Any:
        raise CommandNotFoundError("exec 'x': executable file not found in $PATH", hint="look")

    record = box.create("x")
    with pytest.raises(CommandNotFoundError, match="not found") as caught:
        lifecycle.start(box.parts, record.id, launch=refuse)
    assert (caught.value.exit_status, caught.value.hint) == (127, "look")
    state = box.state(record)
    assert (state.status, state.exit_code) == ("created", 127)
    assert "not found" in state.error
    assert os.listdir(box.root.run) == []

    removed = box.create("x", auto_remove=True, mounts=(Mount("volume", "", "/a"),))
    with pytest.raises(CommandNotFoundError):
        lifecycle.start(box.parts, removed.id, launch=refuse)
    assert not box.parts.containers.exists(removed.id)
    assert box.parts.volumes.list() == []


def test_an_unexpected_failure_is_reported_too(box: Any) -> None:
    def broken(request: object) -> Any:
        raise OSError(28, "No space left on device", "/some/path")

    record = box.create("x")
    with pytest.raises(ContainerStartError, match="/some/path: No space left"):
        lifecycle.start(box.parts, record.id, launch=broken)


def test_bind_sources_are_checked_again_at_start(box: Any, tmp_path: Path) -> None:
    made = tmp_path / "made" / "deep"
    with pytest.raises(MountSpecError, match="bind source path does not exist") as caught:
        box.create("true", mounts=(Mount("bind", str(made), "/m"),))
    assert caught.value.exit_status == 125
    record = box.create("true", mounts=(Mount("bind", str(made), "/m", create=True, origin="-v"),))
    assert made.is_dir()
    assert str(made) in box.said()
    made.rmdir()
    with pytest.raises(MountSpecError, match="bind source path does not exist"):
        lifecycle.start(box.parts, record.id)
    assert not made.exists()


def test_a_missing_volume_of_mount_is_refused_before_any_side_effect(box: Any, tmp_path: Path) -> None:
    mounts = (
        Mount("volume", "fresh", "/f", create=True, origin="-v"),
        Mount("bind", str(tmp_path / "b"), "/b", create=True, origin="-v"),
        Mount("volume", "absent", "/d"),
    )
    with pytest.raises(NoSuchVolumeError) as caught:
        box.create("true", mounts=mounts)
    assert str(caught.value) == (
        'volume "absent" does not exist '
        '(--mount does not create volumes; run "minidock volume create absent" or use -v)'
    )
    assert caught.value.exit_status == 125
    assert box.parts.volumes.list() == []
    assert box.parts.containers.ids() == []
    assert not (tmp_path / "b").exists()
    box.parts.volumes.create("absent")
    box.create("true", mounts=mounts)


def test_a_signal_during_the_start_reaches_the_container(box: Any, fake_launch: Any, wait_until: Any) -> None:
    def slow(request: Any) -> Any:
        (box.folder(record) / "starting").touch()
        while not (box.folder(record) / "signalled").exists():
            time.sleep(0.01)
        return fake_launch(request)

    def start_and_follow() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        running = lifecycle.start(box.parts, record.id, attached=True, launch=slow)
        assert running is not None
        outcome = attach.Session(running.connection, stdin=-1, stdout=-1, stderr=-1, terminal=False).run()
        return outcome.status or 0

    # Until the shell has set its trap the first process of a pid namespace ignores the signal, so another one follows.
    record = box.create("sh", "-c", "trap 'exit 7' INT; echo ready; while :; do sleep 0.01; done")
    with process.spawn(start_and_follow) as starter:
        wait_until((box.folder(record) / "starting").exists)
        wait_until(lambda: _blocks(starter.pid, signal.SIGINT))
        process.pidfd_send_signal(starter.pidfd, signal.SIGINT)
        (box.folder(record) / "signalled").touch()
        box.wait_for_output(record, b"ready")
        with contextlib.suppress(ProcessLookupError):
            process.pidfd_send_signal(starter.pidfd, signal.SIGINT)
        assert starter.wait() == 7
    assert box.state(record).exit_code == 7


def _blocks(pid: int, number: int) -> bool:
    """Whether the process holds a signal back (proc(5), SigBlk)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return bool(int(next(line for line in lines if line.startswith("SigBlk:")).split()[1], 16) >> (number - 1) & 1)


def test_logs_follow_ends_with_the_container(box: Any) -> None:
    record = box.create("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done")
    box.start(record)
    pieces = logs.read(str(box.folder(record)), follow=True, running=lambda: status.is_live(box.parts, record.id))
    assert b"".join(data for _, _, data in pieces) == b"1\n2\n3\n"
