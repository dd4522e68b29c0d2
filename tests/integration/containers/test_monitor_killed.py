"""Whatever is killed at whatever point, the next command that looks finds the truth and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.containers import attach, leftovers, lifecycle, monitor, rest, status
from minidock.containers.claim import Claim
from minidock.errors import ContainerStartError, NoSuchContainerError
from minidock.kernel import process
from minidock.model.container import State
from minidock.model.mounts import Mount
from minidock.store.containers import ContainerStore
from minidock.store.staging import sweep

# Each is the name of something that a monitor does between its start and its end, in that order.
POINTS: list[tuple[str, Any, str]] = [
    ("take the lock", monitor, "_take_lock"),
    ("make ready", monitor, "_make_ready"),
    ("record the start", leftovers, "write_start"),
    ("open the socket", monitor, "_listen"),
    ("record running", ContainerStore, "write_state"),
    ("acknowledge", monitor, "_acknowledge"),
    ("silence", monitor, "_silence"),
    ("reap", process, "wait_pidfd"),
    ("come to rest", rest, "come_to_rest"),
    ("remove the cgroup", leftovers, "remove_cgroup"),
    ("release the lease", leftovers, "release_lease"),
    ("remove the layer", leftovers, "remove_writable"),
    ("remove the volumes", rest, "remove_anonymous"),
    ("remove the record", ContainerStore, "remove"),
    ("remove the run directory", leftovers, "remove_run_dir"),
]


def dead(pid: int) -> bool:
    return process.start_time(pid) == 0


def die_at(patch: pytest.MonkeyPatch, where: Any, name: str, *, before: bool, test: int) -> None:
    """Let any other process than the test's own end at once when it calls the function."""
    real = getattr(where, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        others = os.readlink("/proc/self") != str(test)
        if others and before:
            process.exit_now(1)
        result = real(*args, **options)
        if others:
            process.exit_now(1)
        return result

    patch.setattr(where, name, wrapped)


@pytest.mark.parametrize("auto_remove", [False, True], ids=["stays", "rm"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("what", "where", "name"), POINTS, ids=[point[0].replace(" ", "-") for point in POINTS])
def test_a_monitor_killed_at_any_point(  # noqa: PLR0917
    box: Any,
    fake_launch: Any,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    where: Any,
    name: str,
    before: bool,
    auto_remove: bool,
) -> None:
    born = box.root.tmp + "/../born"

    def launch(request: Any) -> Any:
        launched = fake_launch(request)
        Path(born).write_text(str(launched.pid))
        return launched

    record = box.create("true", auto_remove=auto_remove, mounts=(Mount("volume", "", "/a"),))
    with monkeypatch.context() as patch:
        die_at(patch, where, name, before=before, test=int(os.readlink("/proc/self")))
        with contextlib.suppress(ContainerStartError):
            running = lifecycle.start(box.parts, record.id, attached=True, launch=launch)
            assert running is not None
            attach.exit_status(running.connection)
            lifecycle.finish(running)
    found = status.list_all(box.parts)
    sweep(box.root)
    assert not Path(born).exists() or dead(int(Path(born).read_text()))
    assert os.listdir(box.root.run) == []
    assert os.listdir(box.root.tmp) == []
    if not found:
        assert auto_remove
        assert box.parts.volumes.list() == []
        return
    [(_, state)] = found
    assert state.status in {"created", "exited"}
    assert state.pid == 0
    # A second look changes nothing, and the container can be started: in the end it is as if nothing had happened.
    assert status.list_all(box.parts) == found
    box.start(record)
    assert lifecycle.wait(box.parts, record.id) == 0
    if auto_remove:
        with pytest.raises(NoSuchContainerError):
            status.check(box.parts, record.id)


@pytest.mark.parametrize(
    "command", [["sleep", "1000"], ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "sleep", "1000"]]
)
def test_the_container_dies_with_its_monitor(box: Any, wait_until: Callable[..., None], command: list[str]) -> None:
    record = box.create(*command)
    box.start(record)
    before = box.state(record)
    os.kill(before.monitor_pid, signal.SIGKILL)
    wait_until(lambda: dead(before.pid))
    after = box.state(record)
    assert (after.status, after.exit_code, after.error) == ("exited", 137, "its monitor was killed")
    assert not leftovers.has_writable(str(box.folder(record)))
    assert os.listdir(box.root.run) == []
    lifecycle.remove(box.parts, record.id)


def test_a_killed_monitor_leaves_a_layer_that_is_to_be_kept(box: Any, wait_until: Callable[..., None]) -> None:
    record = box.create("sleep", "1000", keep=True)
    box.start(record)
    os.kill(box.state(record).monitor_pid, signal.SIGKILL)
    wait_until(lambda: box.state(record).status == "exited")
    assert (box.folder(record) / "upper").is_dir()


def test_whoever_waits_learns_that_the_monitor_was_killed(box: Any) -> None:
    record = box.create("sleep", "1000")
    box.start(record)
    child = process.spawn(lambda: lifecycle.wait(box.parts, record.id))
    os.kill(box.state(record).monitor_pid, signal.SIGKILL)
    assert child.wait() == 137
    child.close()


def test_a_stopped_monitor_does_not_keep_rm_from_its_work(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_KILL_SECONDS", 0.3)
    record = box.create("sleep", "1000")
    box.start(record)
    state = box.state(record)
    os.kill(state.monitor_pid, signal.SIGSTOP)
    lifecycle.remove(box.parts, record.id, force=True)
    assert box.parts.containers.ids() == []
    assert dead(state.pid)


def test_the_container_outlives_the_client(box: Any, fake_launch: Any, wait_until: Callable[..., None]) -> None:
    record = box.create("sh", "-c", "echo one; sleep 0.3; echo two; exit 4")
    running = lifecycle.start(box.parts, record.id, attached=True, launch=fake_launch)
    running.close()
    assert lifecycle.wait(box.parts, record.id) == 4
    assert box.output(record) == b"one\ntwo\n"


def test_a_starter_killed_at_once_changes_nothing(box: Any, fake_launch: Any, wait_until: Callable[..., None]) -> None:
    record = box.create("sh", "-c", "sleep 0.2; echo done")

    def start_and_die() -> int:
        real = lifecycle._read_answer
        lifecycle._read_answer = lambda *_: process.exit_now(9)  # type: ignore[assignment, func-returns-value]
        lifecycle.start(box.parts, record.id, attached=True, launch=fake_launch)
        lifecycle._read_answer = real
        return 0

    with process.spawn(start_and_die) as starter:
        assert starter.wait() == 9
    wait_until(lambda: box.state(record).status == "exited")
    assert (box.state(record).exit_code, box.output(record)) == (0, b"done\n")


def test_a_claimed_container_goes_with_its_maker_and_others_stay(box: Any, fake_launch: Any) -> None:
    box.create("true", name="later", auto_remove=True)
    with Claim() as claim:
        record = box.create("true", name="now", auto_remove=True, claim=claim, mounts=(Mount("volume", "", "/a"),))
        assert {found.name for found, _ in status.list_all(box.parts)} == {"later", "now"}
    assert [found.name for found, _ in status.list_all(box.parts)] == ["later"]
    assert box.parts.volumes.list() == []
    with Claim() as claim:
        record = box.create("sleep", "1000", name="now", auto_remove=True, claim=claim)
        box.start(record)
    assert box.state(record).status == "running"


def test_after_a_reboot_nothing_claims_to_run(box: Any) -> None:
    record = box.create("sleep", "1000")
    alive = State("running", pid=os.getpid(), start_time=process.start_time(os.getpid()), boot_id="another-boot")
    box.parts.containers.write_state(record.id, alive, sync=False)
    state = box.state(record)
    assert (state.status, state.exit_code, state.error) == ("exited", 137, "the host was restarted while it ran")


def test_a_recycled_pid_is_left_alone(box: Any) -> None:
    record = box.create("sleep", "1000")
    with process.spawn(signal.pause) as bystander:
        stale = State("running", pid=bystander.pid, start_time=1, boot_id=box.root.boot_id())
        box.parts.containers.write_state(record.id, stale, sync=False)
        assert box.state(record).status == "exited"
        assert process.wait_pidfd(bystander.pidfd, block=False) is None
        process.pidfd_send_signal(bystander.pidfd, signal.SIGKILL)
        bystander.wait()


def test_a_create_that_was_killed_before_its_volumes_is_finished_by_start(
    box: Any, fake_launch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (box.tree / "data").mkdir()
    (box.tree / "data" / "file").write_text("of the image")
    mounts = (Mount("volume", "", "/data"), Mount("volume", "named", "/data2", create=True, origin="-v"))

    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("minidock.containers.create.make_volumes", killed)
        patch.setattr(rest, "remove_record", killed)
        with pytest.raises(KilledError):
            box.create("true", mounts=mounts)
    [(record, state)] = status.list_all(box.parts)
    assert state.status == "created"
    assert box.parts.volumes.list() == []
    box.start(record)
    assert lifecycle.wait(box.parts, record.id) == 0
    assert sorted(volume.name for volume in box.parts.volumes.list()) == sorted([record.anonymous[0], "named"])
    assert Path(box.parts.volumes.path_of(record.anonymous[0]), "file").read_text() == "of the image"
