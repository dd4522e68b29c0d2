"""Full disks, files that vanish, and commands that cross each other: monitors go on, and verbs come to an end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from minidock.containers import attach, frames, leftovers, lifecycle, logs, status
from minidock.containers.parts import Parts
from minidock.errors import ConflictError, NoSuchContainerError
from minidock.kernel import process
from minidock.log import Log
from minidock.store.containers import ContainerStore
from minidock.store.layout import DataRoot
from minidock.volumes.volumes import Volumes


def test_a_pause_that_cannot_be_recorded_is_refused_and_harms_nobody(minidock: Any) -> None:
    root = DataRoot(str(minidock.root))
    parts = Parts(root, ContainerStore(root), Volumes(root), None, Log())
    container_id = minidock.out("run", "-d", "--name", "it", "--network", "none", "busybox", "sleep", "100")
    os.rename(root.tmp, root.tmp + ".away")
    with pytest.raises(ConflictError, match="cannot pause"):
        lifecycle.pause(parts, container_id)
    os.rename(root.tmp + ".away", root.tmp)
    assert minidock.out("exec", "it", "echo", "alive", timeout=10) == "alive"
    minidock("pause", "it")
    assert minidock.inspect("it")["State"]["Status"] == "paused"


def test_a_log_that_is_cut_off_by_hand_goes_on(box: Any, wait_until: Callable[..., None]) -> None:
    """With a client that lags, so that the monitor needs what is no longer there."""
    record = box.create("sh", "-c", "head -c 5000000 /dev/zero; read word; echo after", interactive=True)
    box.start(record)
    client = attach.connect(box.root, record.id)
    attach._send(client, frames.frame(frames.ATTACH))
    wait_until(lambda: os.path.getsize(logs.log_path(str(box.folder(record)))) == 5_000_000)
    os.truncate(logs.log_path(str(box.folder(record))), 0)
    other = attach.connect(box.root, record.id)
    attach._send(other, frames.frame(frames.STDIN, b"word\n"))
    assert attach.exit_status(other, timeout=10) == 0
    assert attach.exit_status(client, timeout=10) in {0, None}
    for fd in (client, other):
        os.close(fd)
    assert box.output(record).endswith(b"after\n")


def test_what_cannot_be_removed_does_not_cost_the_exit_code(
    box: Any, fake_launch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error", "/somewhere")

    record = box.create("sh", "-c", "exit 6")
    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "remove_run_dir", refuse)
        running = lifecycle.start(box.parts, record.id, attached=True, launch=fake_launch)
        assert running is not None
        assert attach.exit_status(running.connection) == 6
        lifecycle.finish(running)
    assert (box.state(record).status, box.state(record).exit_code) == ("exited", 6)
    assert os.listdir(box.root.run) == []


def test_a_container_started_again_while_it_is_removed_goes_all_the_same(
    box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = box.create("sleep", "100")
    box.start(record)
    real = lifecycle.kill_hard
    kills: list[str] = []

    def kill(parts: Any, container_id: str) -> None:
        real(parts, container_id)
        kills.append(container_id)
        if len(kills) == 1:
            box.start(record)

    monkeypatch.setattr(lifecycle, "kill_hard", kill)
    lifecycle.remove(box.parts, record.id, force=True)
    assert len(kills) == 2
    assert not box.parts.containers.exists(record.id)
    assert os.listdir(box.root.run) == []


def test_a_start_that_a_removal_overtakes_says_so(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record = box.create("true")
    real = status.check

    def overtaken(parts: Any, container_id: str) -> Any:
        found = real(parts, container_id)
        monkeypatch.undo()
        lifecycle.remove(box.parts, record.id)
        return found

    monkeypatch.setattr(status, "check", overtaken)
    with pytest.raises(NoSuchContainerError, match="no such container"):
        lifecycle.start(box.parts, record.id)
    assert os.listdir(box.root.run) == []


def test_a_start_killed_with_a_fresh_layer_leaves_none(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record = box.create("true")
    box.start(record)
    lifecycle.wait(box.parts, record.id)
    real = box.parts.rootfs.prepare

    def prepare(diff_ids: object, writable: str) -> None:
        real(diff_ids, writable)
        process.exit_now(1)

    monkeypatch.setattr(box.parts.rootfs, "prepare", prepare)
    with pytest.raises(Exception, match="monitor was killed"):
        lifecycle.start(box.parts, record.id)
    assert box.state(record).status == "exited"
    assert not leftovers.has_writable(str(box.folder(record)))


def test_a_reboot_during_the_take_down_leaves_no_layer(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit is on record; the run directory, by which others know that something is left, is lost with the boot."""
    record = box.create("true")
    box.start(record)
    lifecycle.wait(box.parts, record.id)
    box.parts.rootfs.prepare((), str(box.folder(record)))
    monkeypatch.setattr(type(box.root), "boot_id", staticmethod(lambda: "another"))
    assert [state.status for _, state in status.list_all(box.parts)] == ["exited"]
    assert not leftovers.has_writable(str(box.folder(record)))
